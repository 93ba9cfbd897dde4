"""Rounding to the nearest of evenly spaced levels, the simplest quantization there is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import BITS, CodebookTensor, row_pieces
from edgedec.quantize.kmeans import check_matrix


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
