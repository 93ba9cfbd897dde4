"""Kernels for NVIDIA GPUs that are compiled already: their PTX, and what launches them.

`kernels/triton/` is their source; `python -m edgedec.kernels.triton.compile` writes the PTX and its
manifest. Running them needs neither Triton nor Python: a driver compiles PTX for the GPU at hand.

All take the same nine arguments, in the order of TensorRT's plugins: the addresses of x, words,
levels, groups and scales, the int32 scalars M, N and K, and the address of y (`words.Words` says
what these hold; levels are of the type of x). Both tactics are right for every M, N and K, so a
caller may go by speed alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from edgedec.errors import DeviceError

Tactic = Literal["gemv", "gemm"]
"""``gemv``: decode for one row of x at a time. ``gemm``: on tensor cores, 16 rows at a time."""
Dtype = Literal["fp16", "bf16"]
FOLDER = Path(__file__).parent / "triton" / "ptx"
MANIFEST = FOLDER / "manifest.json"
THREADS = 32
"""In a warp."""


@dataclass(frozen=True)
class Kernel:
    """A kernel and its launch.

    Attributes:
        name: of the entry in the PTX.
        file: of the PTX, beside the manifest.
        sha256: of this file, in hexadecimal.
        tactic: which way of multiplying.
        bits: of a code.
        dtype: of x, levels and y.
        block_m: rows of x that a block of threads multiplies.
        block_n: rows of the matrix that it multiplies them with.
        warps: of a block.
        shared: bytes of shared memory that the launch adds.
        parameters: names of the arguments, in order.
    """

    name: str
    file: str
    sha256: str
    tactic: Tactic
    bits: int
    dtype: Dtype
    block_m: int
    block_n: int
    warps: int
    shared: int
    parameters: tuple[str, ...]

    @property
    def threads(self) -> int:
        """Of a block, along x."""
        return THREADS * self.warps

    def grid(self, m: int, n: int) -> tuple[int, int, int]:
        """Blocks along x, y and z for ``y [m, n]``."""
        return -(-n // self.block_n), -(-m // self.block_m), 1

    def ptx(self) -> str:
        """The text.

        Raises:
            DeviceError: the file is missing or is not the one that the manifest was written with.
        """
        path = FOLDER / self.file
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DeviceError(f"{path} is missing or damaged: install edgedec again.")
        return content.decode("ascii")


@cache
def kernels() -> tuple[Kernel, ...]:
    """All that are shipped.

    Raises:
        DeviceError: the manifest is missing or damaged.
    """
    try:
        listed = json.loads(MANIFEST.read_text(encoding="utf-8"))["kernels"]
        return tuple(Kernel(**{**one, "parameters": tuple(one["parameters"])}) for one in listed)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"{MANIFEST} is missing or damaged: install edgedec again.") from error


def kernel(tactic: Tactic, bits: int, dtype: Dtype) -> Kernel:
    """The kernel for codes of so many bits and such inputs.

    Raises:
        DeviceError: the manifest is missing or damaged.
        ValueError: there is none.
    """
    for found in kernels():
        if (found.tactic, found.bits, found.dtype) == (tactic, bits, dtype):
            return found
    raise ValueError(f"there is no {tactic} kernel for codes of {bits} bits and {dtype}")
