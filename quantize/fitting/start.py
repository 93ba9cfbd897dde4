"""Where fitting begins: k-means of each group's weights, which count by what their inputs are.

Rows are divided by their root mean square, then each group is clustered on a histogram. Its bins
are narrow where weights are many and wide in the tails, so that a few huge weights do not spoil
the resolution of all others; sums of bins are kept, so levels are exact means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.fitting.damping import Curvature
from edgedec.quantize.fitting.feedback import choose_with_feedback
from edgedec.quantize.fitting.fit import Fit
from edgedec.quantize.fitting.levels import as_integers, split_worst
from edgedec.quantize.fitting.products import pieces
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

BINS = 4096
COARSE = 128
"""Bins of the first guess: a fine histogram of few weights says little about their density."""
ITERATIONS = 40
SETTLED = 1e-6
SMALLEST = 1e-30
"""Rows whose weights are all smaller become 0, because float32 would lose digits."""


def start(
    weight: Array, starts: NDArray[np.intp], curvature: Curvature, bits: int, pool: Pool
) -> Fit:
    """The k-means fit: nearest levels, which are integers within +-63 already.

    Args:
        weight: ``[N, K]``, rows and columns in their own order.
        starts: ``[G + 1]``: groups of rows.
        curvature: of its inputs.
        bits: of codes.
        pool: for the products.
    """
    target = np.ascontiguousarray(weight.T[curvature.order], np.float32)
    largest = np.abs(target).max(axis=0).astype(np.float64)
    used = largest > SMALLEST
    largest[~used] = 1
    # divided first: squares of small weights are nothing
    target /= largest.astype(np.float32)
    target[:, ~used] = 0
    diagonal = curvature.diagonal
    part = np.sqrt((diagonal @ (target * target)).astype(np.float64) / diagonal.sum())
    part[~used] = 1
    target /= part.astype(np.float32)
    scale = largest * part
    # by group: beside a far larger neighbour, float32 would have nothing left of a matrix
    unit = np.maximum.reduceat(np.where(used, scale, 0), starts[:-1])
    unit[unit == 0] = 1
    importance = np.where(used, scale / np.repeat(unit, np.diff(starts)), 0)
    fit = Fit(
        curvature=curvature,
        starts=starts,
        scale=scale,
        used=used,
        unit=unit,
        importance=(importance * importance).astype(np.float32),
        target=target,
        pull=np.empty_like(target),
        levels=np.empty((len(starts) - 1, 1 << bits), np.float32),
        codes=np.empty(target.shape, np.uint8),
        values=np.empty_like(target),
        residual=np.empty_like(target),
    )
    _pull(fit, pool)
    fit.levels, unit = as_integers(*_cluster(fit, bits, pool))
    fit.rescale(unit[fit.group])
    choose_nearest(fit, pool)
    return fit


def choose_nearest(fit: Fit, pool: Pool) -> None:
    """Give each weight the nearest level; the residual is measured."""
    middles = (fit.levels[:, 1:] + fit.levels[:, :-1]) / 2

    def group(number: int) -> None:
        rows = slice(fit.starts[number], fit.starts[number + 1])
        fit.codes[:, rows] = np.searchsorted(middles[number], fit.target[:, rows])

    pool.map(group, range(len(middles)))
    fit.look_up(pool)
    fit.measure(pool)


def feed_back(fit: Fit, pool: Pool) -> None:
    """Give each weight the level that error feedback chooses; the residual is measured."""
    fit.values = choose_with_feedback(
        fit.target, fit.tables, fit.curvature.feedback, pool, fit.codes
    )
    fit.measure(pool)


def _pull(fit: Fit, pool: Pool) -> None:
    def piece(part: slice) -> None:
        np.matmul(fit.curvature.coupling, fit.target[:, part], out=fit.pull[:, part])
        fit.pull[:, part] += fit.target[:, part]

    pool.map(piece, pieces(fit.target.shape[1]))


@dataclass(frozen=True, eq=False)
class _Histogram:
    """Of a group. Bin b is ``[borders[b], borders[b + 1])``; all arrays but that are ``[BINS]``."""

    borders: Doubles
    masses: Doubles
    moments: Doubles
    squares: Doubles


def _cluster(fit: Fit, bits: int, pool: Pool) -> tuple[Doubles, Doubles]:
    """Ascending levels of each group and the importance of their weights, ``[G, 2**bits]``."""

    def group(number: int) -> tuple[Doubles, Doubles]:
        rows = slice(fit.starts[number], fit.starts[number + 1])
        worth = fit.curvature.diagonal[:, None] * fit.importance[rows]
        return lloyd(_count(fit.target[:, rows], worth), 1 << bits)

    levels, masses = zip(*pool.map(group, range(len(fit.starts) - 1)), strict=True)
    return np.stack(levels), np.stack(masses)


def _count(values: Array, worth: Array) -> _Histogram:
    # v / (1 + |v|) is within +-1 and has half its range for the weights below the mean square
    place = values / (1 + np.abs(values))
    index = np.minimum(((place + 1) * np.float32(BINS / 2)).astype(np.intp), BINS - 1).ravel()
    flat, worth64 = values.ravel().astype(np.float64), worth.ravel().astype(np.float64)
    sums = [
        np.bincount(index, weights, BINS).astype(np.float64)
        for weights in (worth64, worth64 * flat, worth64 * flat * flat)
    ]
    edges = np.linspace(-1, 1, BINS + 1)[1:-1]
    inner = edges / (1 - np.abs(edges))
    low, high = min(flat.min(), inner[0]), max(flat.max(), inner[-1])
    return _Histogram(np.concatenate([[low], inner, [high]]), *sums)


def lloyd(histogram: _Histogram, levels: int) -> tuple[Doubles, Doubles]:
    """Cluster a histogram: ascending levels and the mass of each cluster.

    Levels of empty clusters move beside the cluster that loses most.
    """
    sums = [
        np.concatenate([[0.0], np.cumsum(x)])
        for x in (histogram.masses, histogram.moments, histogram.squares)
    ]
    if sums[0][-1] <= 0:
        return np.zeros(levels), np.zeros(levels)
    found = _first_guess(histogram, levels)
    mass = np.zeros(levels)
    for _ in range(ITERATIONS):
        inside = np.searchsorted(histogram.borders[1:-1], (found[1:] + found[:-1]) / 2)
        edges = np.concatenate([[0], inside + 1, [BINS]])
        mass, moment, square = (np.diff(x[edges]) for x in sums)
        filled = mass > 0
        mean = moment / np.where(filled, mass, 1)
        moved = np.where(filled, mean, found)
        loss = np.maximum(square - mean * moment, 0)
        split_worst(moved, ~filled, loss, mass)
        moved.sort()
        settled = np.abs(moved - found).max() <= SETTLED * np.abs(moved).max()
        found = moved
        if settled:
            break
    return found, mass


def _first_guess(histogram: _Histogram, levels: int) -> Doubles:
    """Levels as dense as the cube root of the density (Panter and Dite, 1951)."""
    step = BINS // COARSE
    masses = histogram.masses.reshape(COARSE, step).sum(axis=1)
    borders = histogram.borders[::step]
    passed = np.cumsum(np.cbrt(masses * np.diff(borders) ** 2))
    wanted = (np.arange(levels) + 0.5) / levels
    return np.interp(wanted, np.concatenate([[0.0], passed]) / passed[-1], borders)
