"""Codebooks by plain k-means: one-dimensional, per group of rows, on a histogram.

Rows are divided by their largest absolute value, so that rows of any size can share a codebook.
Then two rounds of: cluster the quotients of a group, give each row the scale that fits its codes
best in the least-squares sense. Clustering looks at a histogram only, whose prefix sums make an
iteration independent of the number of weights. Levels are rounded to 7 bits, as kernels hold them,
before codes are chosen, so that codes and scales make up for that. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import BLOCK_ROWS, PIECE, CodebookTensor, seven_bits

GROUP_ROWS = 64
"""Rows with one codebook.

The relative error of our two test checkpoints at 4 bits is 0.6 % lower with 16 rows, which take
twice the time, and 0.1 % higher with one codebook per matrix (tests/quantize/test_checkpoints.py).
"""
BINS = 4096
COARSE = 128
"""Bins of the first guess; a fine histogram of few weights says little about their density."""
SMALLEST, LARGEST = 1e-30, 1e30
"""Rows of smaller weights become 0, because float32 would lose digits; larger ones are refused."""
ROUNDS = 2
ITERATIONS = 30
SETTLED = 1e-5
"""Levels that move less than this part of their range have converged."""

Doubles = NDArray[np.float64]


def kmeans(weight: NDArray[np.floating], bits: int, group_rows: int = GROUP_ROWS) -> CodebookTensor:
    """Quantize a matrix ``[N, K]`` to 2, 3 or 4 bits.

    Args:
        weight: any float type; not larger than 1e30.
        bits: bits per code.
        group_rows: rows that share a codebook, a multiple of 16.

    Raises:
        ValueError: no matrix, other bits or groups, weights that are NaN, infinite or too large.
    """
    if bits not in (2, 3, 4):
        raise ValueError(f"k-means makes codes of 2, 3 or 4 bits, not {bits}")
    if group_rows < BLOCK_ROWS or group_rows % BLOCK_ROWS:
        raise ValueError(f"{group_rows} rows per codebook are no multiple of {BLOCK_ROWS}")
    check_matrix(weight)
    rows, columns = weight.shape
    codes = np.empty((rows, columns), np.uint8)
    scale = np.empty(rows, np.float32)
    groups = -(-rows // group_rows)
    if groups > 1 << 16:
        raise ValueError(f"{groups} codebooks are too many: use larger groups than {group_rows}")
    codebooks = np.empty((groups, 1 << bits), np.float32)
    for part in _whole_groups(rows, columns, group_rows):
        books = slice(part.start // group_rows, -(-part.stop // group_rows))
        piece = weight[part].astype(np.float32, copy=False)
        codes[part], codebooks[books], scale[part] = _cluster(piece, bits, group_rows)
    group_of_row = (np.arange(rows) // group_rows).astype(np.uint16)
    return CodebookTensor(codes, codebooks, scale, group_of_row, bits)


def check_matrix(weight: NDArray[np.floating]) -> None:
    """Raise ValueError where there is no matrix, or where it holds NaN, infinity or huge values."""
    if weight.ndim != 2 or not weight.size:
        raise ValueError(f"weights of shape {list(weight.shape)} are no matrix")
    # NaN fails the comparison as well
    if not max(abs(float(weight.max())), abs(float(weight.min()))) <= LARGEST:
        raise ValueError(f"weights hold NaN, infinity or values above {LARGEST:g}")


def _whole_groups(rows: int, columns: int, group_rows: int) -> Iterator[slice]:
    """Pieces of about a million weights that no group crosses."""
    step = max(PIECE // (columns * group_rows), 1) * group_rows
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


@dataclass(frozen=True, eq=False)
class _Histogram:
    """Quotients by group, in `BINS` equal bins over ``+-reach``.

    Attributes:
        index: intp ``[N, K]``: the bin of each weight, counted through all groups.
        counts: ``[G, BINS]``.
        reach: ``[G]``.
    """

    index: NDArray[np.intp]
    counts: NDArray[np.int64]
    reach: Doubles


def _cluster(
    weight: NDArray[np.float32], bits: int, group_rows: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Codes, codebooks ``[G, 2**bits]`` and row scales of some whole groups."""
    group = np.arange(len(weight)) // group_rows
    largest = np.abs(weight).max(axis=1)
    used = largest > SMALLEST
    scale: NDArray[np.float32] = np.where(used, largest, np.float32(1))
    if not used.all():
        weight = np.where(used[:, None], weight, np.float32(0))
    for _ in range(ROUNDS):
        quotient = weight / scale[:, None]
        histogram = _count(quotient, group)
        levels, unit = seven_bits(_lloyd(histogram, 1 << bits))
        code_of_bin = _nearest(levels * (unit / histogram.reach)[:, None])
        codes = code_of_bin.ravel()[histogram.index]
        value = levels.astype(np.float32).ravel()[codes + (group << bits)[:, None]]
        squares = np.einsum("nk,nk->n", value, value)
        fit = np.einsum("nk,nk->n", quotient, value) / np.where(squares > 0, squares, 1)
        # where all codes stand for 0, any scale fits
        scale *= np.where(fit > 0, fit, unit[group]).astype(np.float32)
    return codes, levels.astype(np.float32), np.where(used, scale, np.float32(0))


def _count(quotient: NDArray[np.float32], group: NDArray[np.intp]) -> _Histogram:
    groups = int(group[-1]) + 1
    reach = np.zeros(groups, np.float32)
    np.maximum.at(reach, group, np.abs(quotient).max(axis=1))
    reach = np.where(reach > 0, reach, np.float32(1))
    index = (quotient * (BINS / 2 / reach)[group, None].astype(np.float32)).astype(np.float32)
    index += np.float32(BINS / 2)
    bins = np.minimum(index.astype(np.intp), BINS - 1)
    bins += (group * BINS)[:, None]
    counts = np.bincount(bins.ravel(), minlength=groups * BINS).reshape(groups, BINS)
    return _Histogram(bins, counts, reach.astype(np.float64))


def _lloyd(histogram: _Histogram, levels: int) -> Doubles:
    """Cluster each group's histogram; ascending levels ``[G, levels]``."""
    counts = histogram.counts.astype(np.float64)
    center = (np.arange(BINS) + 0.5) / (BINS / 2) - 1
    weights, moments = (
        np.pad(np.cumsum(x, axis=1), ((0, 0), (1, 0))) for x in (counts, counts * center)
    )
    found = _first_guess(counts, levels)
    edges = np.full((len(counts), levels + 1), BINS)
    edges[:, 0] = 0
    for _ in range(ITERATIONS):
        middle = (found[:, 1:] + found[:, :-1]) / 2
        edges[:, 1:-1] = _edge(middle)
        weight = np.diff(np.take_along_axis(weights, edges, axis=1), axis=1)
        moment = np.diff(np.take_along_axis(moments, edges, axis=1), axis=1)
        moved = np.where(weight > 0, moment / np.where(weight > 0, weight, 1), found)
        settled = np.abs(moved - found).max() < SETTLED
        found = moved
        if settled:
            break
    return found * histogram.reach[:, None]


def _first_guess(counts: Doubles, levels: int) -> Doubles:
    """Levels as dense as the cube root of the density (Panter and Dite, 1951)."""
    density = np.cbrt(counts.reshape(len(counts), COARSE, -1).sum(axis=2))
    passed = np.pad(np.cumsum(density, axis=1), ((0, 0), (1, 0)))
    passed /= passed[:, -1:]
    border = np.linspace(-1, 1, COARSE + 1)
    wanted = (np.arange(levels) + 0.5) / levels
    return np.stack([np.interp(wanted, row, border) for row in passed])


def _edge(middle: Doubles) -> NDArray[np.int64]:
    """The first bin whose center is not below ``middle``, which lies within +-1."""
    return np.ceil((middle + 1) * (BINS / 2) - 0.5).astype(np.int64)


def _nearest(levels: Doubles) -> NDArray[np.uint8]:
    """The code of each bin ``[G, BINS]`` for ascending levels within +-1."""
    edges = _edge((levels[:, 1:] + levels[:, :-1]) / 2)
    starts = np.zeros((len(levels), BINS + 1), np.uint8)
    np.add.at(starts, (np.arange(len(levels))[:, None], edges), 1)
    return np.cumsum(starts[:, :BINS], axis=1, dtype=np.uint8)
