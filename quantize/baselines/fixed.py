"""Levels that are the same for all weights, times a scale per row or per block of columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.baselines.kmeans import SMALLEST, check_matrix
from edgedec.quantize.codebook import CodebookTensor, row_pieces, seven_bits

Array = NDArray[np.float32]
LARGEST_HALF = float(np.finfo(np.float16).max)


def in_blocks(weight: Array, block: int) -> Array:
    """A matrix ``[N, K]`` as ``[N, K / block, block]``, with zeros behind its last column."""
    rows, columns = weight.shape
    return np.pad(weight, ((0, 0), (0, -columns % block))).reshape(rows, -1, block)


def spread(scale: Array, columns: int, block: int) -> Array:
    """Scales ``[N, K / block]`` for each weight ``[N, K]``."""
    return np.repeat(scale, block, axis=1)[:, :columns]


def signed_largest(blocks: Array) -> Array:
    """The entry of the largest magnitude, with its sign, over the last axis."""
    where = np.abs(blocks).argmax(axis=-1, keepdims=True)
    return np.take_along_axis(blocks, where, axis=-1)[..., 0]


def half(scale: Array) -> Array:
    """Scales as float16 keeps them, in float32; beyond its range the largest one it has."""
    return np.clip(scale, -LARGEST_HALF, LARGEST_HALF).astype(np.float16).astype(np.float32)


def round_rows(weight: Array, levels: NDArray[np.floating], unit: Array) -> CodebookTensor:
    """The nearest of some levels for each weight ``[N, K]``, with a scale per row.

    Levels are rounded to 7 bits first, as kernels hold them, so codes are the nearest of what is
    stored.

    Args:
        weight: the matrix.
        levels: ``[2**bits]``, ascending.
        unit: ``[N]``: what level 1 stands for in each row; any sign. Rows without become 0.

    Raises:
        ValueError: no matrix, or weights that are NaN, infinite or above 1e30.
    """
    check_matrix(weight)
    books, factor = seven_bits(levels[None])
    scale = (unit * np.float32(factor[0])).astype(np.float32)
    scale[np.abs(scale) < SMALLEST] = 0
    codes = np.empty(weight.shape, np.uint8)
    for rows in row_pieces(*weight.shape):
        codes[rows] = _nearest(weight[rows], scale[rows, None], books[0])
    group_of_row = np.zeros(len(weight), np.uint16)
    bits = len(levels).bit_length() - 1
    return CodebookTensor(codes, books.astype(np.float32), scale, group_of_row, bits)


def round_blocks(weight: Array, levels: NDArray[np.floating], unit: Array, block: int) -> Array:
    """What a matrix ``[N, K]`` becomes with a float16 scale for each row and ``block`` columns.

    Args:
        weight: the matrix.
        levels: ascending.
        unit: ``[N, K / block]``: what level 1 stands for; any sign. It is rounded to float16 here.
        block: columns that share a scale; the last block of a row may be shorter.

    Raises:
        ValueError: no matrix, or weights that are NaN, infinite or above 1e30.
    """
    check_matrix(weight)
    table = levels.astype(np.float32)
    values = np.empty(weight.shape, np.float32)
    for rows in row_pieces(*weight.shape):
        scale = spread(half(unit[rows]), weight.shape[1], block)
        values[rows] = table[_nearest(weight[rows], scale, table)] * scale
    return values


def _nearest(weight: Array, scale: Array, levels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Codes of weights over scales; what has no scale is 0 whatever its code."""
    table = levels.astype(np.float32)
    quotient = weight / np.where(scale == 0, np.float32(1), scale)
    return np.searchsorted((table[1:] + table[:-1]) / 2, quotient).astype(np.uint8)
