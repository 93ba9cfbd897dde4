"""GPTQ: levels that are fixed beforehand, codes by error feedback (arXiv 2210.17323).

Scales are those of the original weights, columns are treated by falling second moments, and the
second moments are damped as for all methods here. Where the inputs are those of a model whose
earlier matrices are quantized, GPTQ looks at these only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.baselines.fixed import half, in_blocks, round_rows, signed_largest, spread
from edgedec.quantize.baselines.kmeans import SMALLEST, check_matrix, kmeans
from edgedec.quantize.baselines.nearest import even_levels
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.fitting.damping import Curvature, curvature, damped
from edgedec.quantize.fitting.feedback import error_feedback
from edgedec.quantize.method import Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Statistics

BLOCK = 32
NOTHING = 1e-6
"""What level 1 stands for in blocks of zeros, as a part of the largest weight of their row."""

Array = NDArray[np.float32]


def gptq(
    weights: Sequence[Array], statistics: Statistics, bits: int, settings: Settings, pool: Pool
) -> list[CodebookTensor]:
    """Quantize matrices ``[N, K]`` with the same inputs to even levels with a scale per row.

    Raises:
        ValueError: no matrices, weights that are NaN, infinite or above 1e30, bad moments.
    """
    starts = pool.map(partial(_even_rows, bits=bits), weights)
    return _with_feedback(weights, starts, _curvature(statistics, settings), pool)


def gptq_codebook(
    weights: Sequence[Array], statistics: Statistics, bits: int, settings: Settings, pool: Pool
) -> list[CodebookTensor]:
    """Quantize matrices ``[N, K]`` with the same inputs to the codebooks and scales of `kmeans`.

    Raises:
        ValueError: no matrices, weights that are NaN, infinite or above 1e30, bad moments.
    """
    starts = pool.map(partial(kmeans, bits=bits), weights)
    return _with_feedback(weights, starts, _curvature(statistics, settings), pool)


def gptq_blocks(
    weights: Sequence[Array], statistics: Statistics, bits: int, settings: Settings, pool: Pool
) -> list[Array]:
    """What matrices become with even levels and a float16 scale per row and `BLOCK` columns.

    Raises:
        ValueError: no matrices, weights that are NaN, infinite or above 1e30, bad moments.
    """
    if not weights:
        return []
    for weight in weights:
        check_matrix(weight)
    stacked = np.concatenate(weights)
    levels = even_levels(bits)
    # Signs would differ inside a row, and feedback adds up along it. So the largest weight of a
    # block may have no level; later columns make up for that.
    largest = np.abs(in_blocks(stacked, BLOCK)).max(axis=2)
    scale = spread(half(largest / -levels[0]), stacked.shape[1], BLOCK)
    # not 0, and so small that no other weight notices
    least = NOTHING * np.maximum(largest.max(axis=1, keepdims=True), SMALLEST / NOTHING)
    codes = error_feedback(
        stacked,
        np.where(scale > 0, scale, least),
        levels[None],
        np.zeros(len(stacked), np.intp),
        _curvature(statistics, settings),
        pool,
    )
    return np.split(levels[codes] * scale, _borders(weights))


def _curvature(statistics: Statistics, settings: Settings) -> Curvature:
    return curvature(damped(statistics.inputs, settings.damping))


def _even_rows(weight: Array, bits: int) -> CodebookTensor:
    check_matrix(weight)
    levels = even_levels(bits)
    return round_rows(weight, levels, signed_largest(weight) / levels[0])


def _with_feedback(
    weights: Sequence[Array], starts: Sequence[CodebookTensor], hessian: Curvature, pool: Pool
) -> list[CodebookTensor]:
    """Choose the codes of tensors anew, of all of them together."""
    if not weights:
        return []
    scale = np.concatenate([start.row_scale for start in starts])
    # the codes of rows without a scale mean nothing
    scale[scale == 0] = 1
    # a row of the other sign is the same problem
    first = np.cumsum([0, *(len(start.codebooks) for start in starts)])
    groups = [start.group_of_row + number for start, number in zip(starts, first, strict=False)]
    codes = error_feedback(
        np.concatenate(weights) * np.sign(scale)[:, None],
        np.abs(scale),
        np.concatenate([start.codebooks for start in starts]),
        np.concatenate(groups),
        hessian,
        pool,
    )
    parts = np.split(codes, _borders(weights))
    return [replace(start, codes=part) for start, part in zip(starts, parts, strict=True)]


def _borders(weights: Sequence[Array]) -> NDArray[np.intp]:
    """Where all matrices but the first begin in a stack of them."""
    return np.cumsum([len(weight) for weight in weights])[:-1]
