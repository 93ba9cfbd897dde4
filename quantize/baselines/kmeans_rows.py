"""A codebook for every row, learned with the importance of its inputs.

Formats like SqueezeLLM (arXiv 2306.07629) and any4 (arXiv 2507.04610) give each row its own table.
Ours are coded as 8-bit levels and a float16 scale per row. They serve comparisons only: kernels
have a table per 16 rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.baselines.fixed import half
from edgedec.quantize.baselines.kmeans import SMALLEST, check_matrix
from edgedec.quantize.size import BLOCK_SCALE_BITS, LEVEL_BITS

ITERATIONS = 50
QUANTILES = 128
LARGEST_LEVEL = 127
LEAST_IMPORTANCE = 1e-6
"""Of inputs that are always 0, as a part of the mean: some level should be near their weights."""

ROUNDING = 1e-12
"""A cluster with less than this part of its squares left consists of equal weights."""

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


def row_table_bits(columns: int, bits: int) -> float:
    """Bits per weight of codes, int8 levels and a float16 scale per row."""
    return bits + ((LEVEL_BITS << bits) + BLOCK_SCALE_BITS) / columns


def kmeans_rows(weight: Array, importance: Array, bits: int) -> Array:
    """What a matrix ``[N, K]`` becomes with ``2**bits`` levels of its own for every row.

    Args:
        weight: the matrix.
        importance: ``[K]``: the mean square of each input, not negative.
        bits: bits per code.

    Raises:
        ValueError: no matrix, or weights that are NaN, infinite or above 1e30.
    """
    check_matrix(weight)
    largest = np.abs(weight).max(axis=1, keepdims=True).astype(np.float64)
    used = largest > SMALLEST
    quotient = weight / np.where(used, largest, 1)
    order = quotient.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(quotient, order, axis=1)
    floor = LEAST_IMPORTANCE * float(importance.mean()) or 1.0
    levels = cluster_rows(
        ordered, np.maximum(importance, floor).astype(np.float64)[order], 1 << bits
    )

    reach = np.abs(levels).max(axis=1, keepdims=True)
    reach[reach == 0] = 1
    integers = np.rint(levels * (LARGEST_LEVEL / reach))
    scale = half(np.where(used, reach * largest / LARGEST_LEVEL, 0).astype(np.float32))
    edges = _edges(_unique_keys(ordered), integers * (reach / LARGEST_LEVEL))
    values = np.take_along_axis(integers, _codes(edges), axis=1).astype(np.float32)
    result = np.empty(weight.shape, np.float32)
    np.put_along_axis(result, order, values * scale, axis=1)
    return result


def cluster_rows(ordered: Doubles, importance: Doubles, levels: int) -> Doubles:
    """One-dimensional weighted k-means of every row; where a cluster is empty, the worst is split.

    Args:
        ordered: ``[N, K]``, each row ascending, within +-1.
        importance: ``[N, K]``, positive.
        levels: how many.

    Returns:
        ``[N, levels]``, ascending.
    """
    keys = _unique_keys(ordered)
    sums = [
        np.pad(np.cumsum(importance * power, axis=1), ((0, 0), (1, 0)))
        for power in (np.ones(1), ordered, ordered * ordered)
    ]
    found = _first_guess(ordered, sums[0], levels)
    edges = _edges(keys, found)
    for _ in range(ITERATIONS):
        weight, moment, square = (
            np.diff(np.take_along_axis(x, edges, axis=1), axis=1) for x in sums
        )
        sizes = np.diff(edges, axis=1)
        mean = moment / np.where(sizes > 0, weight, 1)
        found = np.where(sizes > 0, mean, found)
        loss = square - mean * moment
        loss[loss < ROUNDING * square] = 0
        _split(found, edges, ordered, loss)
        before, edges = edges, _edges(keys, found)
        if (before == edges).all():
            break
    return found


def _first_guess(ordered: Doubles, passed: Doubles, levels: int) -> Doubles:
    """Levels as dense as the cube root of the density (Panter and Dite, 1951).

    The density is taken between quantiles: bins of equal width would often be empty, and the few
    weights of a row's ends would get no level.
    """
    parts = np.linspace(0, 1, QUANTILES + 1)
    wanted = (np.arange(levels) + 0.5) / levels
    found = np.empty((len(ordered), levels))
    for row, (values, mass) in enumerate(zip(ordered, passed, strict=True)):
        border = np.interp(parts * mass[-1], mass, np.append(values[0], values))
        reached = np.append(0, np.cumsum(np.diff(border) ** (2 / 3)))
        found[row] = np.interp(wanted * reached[-1], reached, border)
    return found


def _split(levels: Doubles, edges: Indices, ordered: Doubles, loss: Doubles) -> None:
    """Move an empty cluster's level of each row to the far end of the cluster that loses most."""
    empty = edges[:, 1:] == edges[:, :-1]
    worst = loss.argmax(axis=1)
    rows = np.flatnonzero(empty.any(axis=1) & (loss.max(axis=1) > 0))
    if len(rows):
        worst = worst[rows]
        first, last = ordered[rows, edges[rows, worst]], ordered[rows, edges[rows, worst + 1] - 1]
        middle = levels[rows, worst]
        far = np.where(middle - first > last - middle, first, last)
        levels[rows, empty[rows].argmax(axis=1)] = far
    levels.sort(axis=1)


def _unique_keys(ordered: Doubles) -> Doubles:
    """All rows as one ascending sequence: rows within +-1 get ranges of their own."""
    return (ordered + _offsets(len(ordered))).ravel()


def _offsets(rows: int) -> Doubles:
    return 4 * np.arange(rows, dtype=np.float64)[:, None]


def _edges(keys: Doubles, levels: Doubles) -> Indices:
    """Where the clusters of ascending levels begin and end in each row: ``[N, levels + 1]``."""
    rows = len(levels)
    columns = len(keys) // rows
    edges = np.full((rows, levels.shape[1] + 1), columns)
    edges[:, 0] = 0
    middle = (levels[:, 1:] + levels[:, :-1]) / 2 + _offsets(rows)
    edges[:, 1:-1] = np.searchsorted(keys, middle) - np.arange(rows)[:, None] * columns
    return edges


def _codes(edges: Indices) -> Indices:
    """The cluster of each position ``[N, K]``."""
    rows, columns = len(edges), int(edges[0, -1])
    starts = np.zeros((rows, columns + 1), np.int64)
    np.add.at(starts, (np.arange(rows)[:, None], edges[:, 1:-1]), 1)
    return np.cumsum(starts[:, :columns], axis=1)
