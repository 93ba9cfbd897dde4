"""The kernels' source in Triton's interpreter against NumPy.

The interpreter multiplies the bits of bfloat16 in `tl.dot`, so gemm is tried in float16 only: of
its bfloat16 kernels nothing is known here but that they have the same source. Assembly is done by
`interpreter`, as the manual of PTX says. Nothing here runs on a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.kernels.codebook_matmul import to_bfloat16
from edgedec.kernels.packing import INT8_LEVELS
from edgedec.kernels.words import Words, pack_words, reference

pytest.importorskip("triton", reason="Triton is not installed: pip install 'edgedec[kernels]'")
Floats = NDArray[np.float32]
Product = Callable[[str, str, Floats, Words], Floats]
KINDS = [("gemv", "fp16"), ("gemv", "bf16"), ("gemm", "fp16")]
ROUNDING = {"fp16": 2.0**-11, "bf16": 2.0**-7}
"""Largest relative error of y's type; the interpreter cuts float32 to bfloat16."""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Launches a kernel in a process of its own."""
    path = tmp_path_factory.mktemp("triton") / "case.npz"
    command = [sys.executable, "-P", str(Path(__file__).with_name("interpreter.py"))]
    if sys.version_info < (3, 11):
        command.remove("-P")
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin
    assert process.stdout
    stdin, stdout = process.stdin, process.stdout

    def run(tactic: str, dtype: str, x: Floats, weight: Words) -> Floats:
        arrays = {name: getattr(weight, name) for name in ("words", "groups", "scales")}
        levels = weight.levels.astype(np.float32)
        np.savez(path, tactic=tactic, dtype=dtype, x=x, levels=levels, **arrays)
        stdin.write(f"{path}\n")
        stdin.flush()
        assert stdout.readline() == "done\n"
        with np.load(path) as file:
            y: Floats = file["y"]
        return y

    yield run
    stdin.close()
    stdout.close()
    assert process.wait() == 0


def a_weight(rows: int, columns: int, bits: int, seed: int) -> Words:
    """Random codes, some of whose tables are used by several blocks."""
    rng = np.random.default_rng(seed)
    levels = INT8_LEVELS[None]
    if bits != 8:
        levels = rng.integers(-63, 64, (3, 1 << bits), np.int8)
        levels[0, :2] = -63, 63
    return Words(
        words=pack_words(rng.integers(0, 1 << bits, (rows, columns), np.uint8), bits),
        levels=levels,
        groups=rng.integers(0, len(levels), -(-rows // 16), np.int32),
        scales=rng.uniform(-0.01, 0.01, rows).astype(np.float32),
    )


def check(product: Product, tactic: str, dtype: str, x: Floats, weight: Words) -> None:
    """Assert that y is the reference but for sums in float32, within 1e-5, and its rounding."""
    x = x.astype(np.float16).astype(np.float32) if dtype == "fp16" else to_bfloat16(x)
    expected = reference(x, weight.words, weight.levels, weight.groups, weight.scales)
    error = np.abs(product(tactic, dtype, x, weight) - expected)
    limit = ROUNDING[dtype] * np.abs(expected) + 1e-5 * np.abs(expected).max() + 2.0**-24
    assert (error <= limit).all()


@settings(max_examples=12)
@given(
    st.sampled_from(KINDS),
    st.sampled_from([2, 3, 4, 8]),
    st.integers(1, 3),
    st.integers(1, 24),
    st.integers(1, 700),
    st.integers(0, 1 << 16),
)
def test_products_of_any_size(
    product: Product, kind: tuple[str, str], bits: int, m: int, n: int, k: int, seed: int
) -> None:
    x = np.random.default_rng(seed).standard_normal((m, k)).astype(np.float32)
    check(product, *kind, x, a_weight(n, k, bits, seed))


@pytest.mark.parametrize(("tactic", "dtype"), KINDS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rows_that_begin_at_even_addresses(
    product: Product, tactic: str, dtype: str, bits: int
) -> None:
    # K is a multiple of 32 and more than one step; M passes the 16 rows of a program of gemm
    rng = np.random.default_rng(bits)
    x = rng.standard_normal((17 if tactic == "gemm" else 1, 1056)).astype(np.float32)
    check(product, tactic, dtype, x, a_weight(12, x.shape[1], bits, bits))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_inputs_that_are_all_alike_lose_nothing(product: Product, bits: int) -> None:
    # gemv takes 192 times the sum of x off again, which is most of what it has added up here
    x = np.full((1, 1024), 3.0, np.float32) + np.linspace(0, 0.5, 1024, dtype=np.float32)
    check(product, "gemv", "fp16", x, a_weight(8, 1024, bits, bits))


def test_what_is_behind_a_row_is_not_multiplied(product: Product) -> None:
    # the second row begins where the first one ends: 0 * inf would be no number
    x = np.ones((2, 37), np.float32)
    x[1] = np.inf
    weight = a_weight(16, 37, 4, 0)
    for tactic in ("gemv", "gemm"):
        y = product(tactic, "fp16", x, weight)
        assert np.isfinite(y[0]).all()
        assert not np.isfinite(y[1]).any()
