"""Rounding to the nearest of evenly spaced levels, the simplest quantization there is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.baselines.fixed import in_blocks, round_blocks, round_rows, signed_largest
from edgedec.quantize.baselines.kmeans import check_matrix
from edgedec.quantize.codebook import BITS, CodebookTensor, row_pieces

BLOCK = 32


def round_to_nearest(weight: NDArray[np.floating], bits: int = 8) -> CodebookTensor:
    """Quantize a matrix ``[N, K]`` with one scale per row: ``max|w| / (2**(bits-1) - 1)``.

    Levels are the integers from ``-2**(bits-1)``, which no weight uses: the range is symmetric.

    Raises:
        ValueError: no matrix, other bits than 2, 3, 4 and 8, weights that are NaN or infinite.
    """
    if bits not in BITS:
        raise ValueError(f"codes of {bits} bits do not exist, only {BITS}")
    check_matrix(weight)
    rows, columns = weight.shape
    half = 1 << (bits - 1)
    steps = np.float32(half - 1)
    codes = np.empty((rows, columns), np.uint8)
    scale = np.empty(rows, np.float32)
    for part in row_pieces(rows, columns):
        piece = weight[part].astype(np.float32, copy=False)
        largest = np.abs(piece).max(axis=1)
        quotient = piece / np.where(largest > 0, largest, np.float32(1))[:, None]
        codes[part] = np.rint(quotient * steps + np.float32(half))
        scale[part] = largest / steps
    levels = np.arange(-half, half, dtype=np.float32)[None]
    return CodebookTensor(codes, levels, scale, np.zeros(rows, np.uint16), bits)


def even_levels(bits: int) -> NDArray[np.float32]:
    """All integers that ``bits`` bits hold, ascending: ``-2**(bits-1) ... 2**(bits-1) - 1``."""
    half = 1 << (bits - 1)
    return np.arange(-half, half, dtype=np.float32)


def round_to_all(weight: NDArray[np.float32], bits: int) -> CodebookTensor:
    """Quantize a matrix ``[N, K]`` to 2, 3 or 4 bits with one scale per row and no level unused.

    The weight of the largest magnitude becomes ``-2**(bits-1)`` whatever its sign, so the scale has
    a sign, as in llama.cpp's Q4_0. A symmetric range would waste one of 4 levels.

    Raises:
        ValueError: no matrix, or weights that are NaN, infinite or above 1e30.
    """
    check_matrix(weight)
    levels = even_levels(bits)
    return round_rows(weight, levels, signed_largest(weight) / levels[0])


def round_to_blocks(
    weight: NDArray[np.float32], bits: int, block: int = BLOCK
) -> NDArray[np.float32]:
    """What a matrix ``[N, K]`` becomes with a float16 scale for each row and ``block`` columns.

    Scales are those of `round_to_all`. This is what Q4_0 and MatMulNBits store, with 32 columns.

    Raises:
        ValueError: no matrix, or weights that are NaN, infinite or above 1e30.
    """
    check_matrix(weight)
    levels = even_levels(bits)
    unit = signed_largest(in_blocks(weight, block)) / levels[0]
    return round_blocks(weight, levels, unit, block)
