"""Runs kernels in Triton's interpreter, which has to be chosen before Triton is imported.

It knows no assembly, so it is taught what the kernels have of it. Each line of standard input
names a file of arrays, which gets the product; a line answers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from edgedec.kernels.triton.compile import RECIPES, WARPS
from edgedec.kernels.triton.gemm import gemm
from edgedec.kernels.triton.gemv import gemv

HALVES = (
    "{ .reg .b16 low, high; mov.b32 {low, high}, $2; cvt.f32.f16 $0, low; cvt.f32.f16 $1, high; }"
)
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def prmt(low: NDArray[Any], high: NDArray[Any], selector: NDArray[Any]) -> NDArray[np.int32]:
    """Bytes of two words by nibbles: PTX ISA 8.0, 9.7.8.7, in its default mode."""
    shape = np.broadcast_shapes(low.shape, high.shape, selector.shape)
    halves = [np.broadcast_to(half, shape).astype(np.int32)[..., None] for half in (low, high)]
    source = np.ascontiguousarray(np.concatenate(halves, axis=-1)).view(np.uint8)
    nibbles = np.broadcast_to(selector, shape)[..., None] >> np.arange(0, 16, 4) & 15
    picked = np.take_along_axis(source, nibbles & 7, axis=-1)
    picked = np.where(nibbles & 8, (picked >> 7) * np.uint8(255), picked)
    return np.ascontiguousarray(picked).view(np.int32)[..., 0]


def halves(both: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float16 of the lower and of the upper half of words, as float32."""
    stored = np.ascontiguousarray(both.astype(np.int32)[..., None]).view(np.float16)
    return stored[..., 0].astype(np.float32), stored[..., 1].astype(np.float32)


def assembly(
    builder: Any, text: str, constraints: str, values: list[Any], types: Any, pure: bool, pack: int
) -> Any:
    """In the place of the interpreter's method, which raises."""
    assert pure
    assert pack == 1
    arrays = [value.data for value in values]
    if (text, constraints) == ("prmt.b32 $0, $1, $2, $3;", "=r,r,r,r"):
        results = [TensorHandle(prmt(*arrays), tl.int32)]
    else:
        assert (text, constraints) == (HALVES, "=f,=f,r")
        results = [TensorHandle(half, tl.float32) for half in halves(*arrays)]
    return SimpleNamespace(get_result=lambda index: results[index])


InterpreterBuilder.create_inline_asm = assembly


def run(path: Path) -> None:
    """Replace the file's arrays by ``y``, float32 ``[M, N]``, launched as its recipe says."""
    with np.load(path) as file:
        case = dict(file)
    tactic, dtype = str(case["tactic"]), TYPES[str(case["dtype"])]
    bits = case["levels"].shape[1].bit_length() - 1
    recipe = next(r for r in RECIPES if (r.tactic, r.bits) == (tactic, bits))
    x, levels = (torch.from_numpy(case[name]).to(dtype) for name in ("x", "levels"))
    words, groups, scales = (torch.from_numpy(case[n]) for n in ("words", "groups", "scales"))
    (m, k), n = x.shape, len(words)
    y = torch.full((m, n), torch.nan, dtype=dtype)
    grid = (-(-n // recipe.block_n), -(-m // recipe.block_m))
    function: Any = {"gemv": gemv, "gemm": gemm}[tactic]
    constants = {"BITS": bits, "WARPS": WARPS, **recipe.constants}
    function[grid](x, words, levels, groups, scales, m, n, k, y, **constants)
    np.savez(path, y=y.float().numpy())


for line in sys.stdin:
    run(Path(line.strip()))
    sys.stdout.write("done\n")
    sys.stdout.flush()
