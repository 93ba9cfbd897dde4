"""Levels and codes learned together by gradients, as JLCM does (arXiv 2309.17361).

Each weight has a shadow value and takes the level nearest to it. The gradient of the objective with
respect to what the weight became moves the shadow, as if rounding were not there, but never by more
than half the gap to the next level: so near levels come before far ones, which is the proximal idea
of the paper. Its formulas are not published; these are ours.

Steps are divided by H's diagonal and by the largest eigenvalue that this leaves: the largest
steps with which a product of weights without rounding would not diverge. Levels learn far slower
than codes flip, because the levels that are best for codes in motion are too small for others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.fitting.fit import Fit
from edgedec.quantize.fitting.products import pieces
from edgedec.quantize.fitting.refit import slopes
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]

STEPS = 200
RATE = 1.0
LEVEL_RATE = 0.0005
"""Of the step that would be best for each level alone."""
POWER_STEPS = 30


def learn_jointly(fit: Fit, pool: Pool, steps: int = STEPS) -> None:
    """Learn codes and levels by gradients; the best state of each group is what remains.

    Levels are no integers afterwards; the residual is measured. No group's objective rises.
    """
    rate = RATE / largest_eigenvalue(fit.curvature.coupling)
    shadow = fit.target.copy()
    # where the code is not the nearest one, for others' sake, it should not fall back
    kept = fit.codes != _nearest(fit, shadow, pool)
    shadow[kept] = fit.values[kept]
    best = fit.objective(pool)
    codes, levels = fit.codes.copy(), fit.levels.copy()
    for step in range(steps):
        size = 0.5 * (1 + np.cos(np.pi * step / steps))
        _move(fit, shadow, np.float32(rate * size), pool)
        slope, mass = slopes(fit, pool)
        moved = fit.levels + LEVEL_RATE * size * slope / np.where(mass > 0, mass, 1)
        fit.levels = np.sort(moved, axis=1).astype(np.float32)
        fit.codes = _nearest(fit, shadow, pool)
        fit.look_up(pool)
        fit.measure(pool)
        now = fit.objective(pool)
        for group in np.flatnonzero(now < best):
            rows = slice(fit.starts[group], fit.starts[group + 1])
            codes[:, rows], levels[group] = fit.codes[:, rows], fit.levels[group]
        best = np.minimum(now, best)
    fit.codes, fit.levels = codes, levels
    fit.look_up(pool)
    fit.measure(pool)


def largest_eigenvalue(coupling: Array) -> float:
    """Of the unit-diagonal H, ``coupling + I``, by power iteration."""
    vector = np.ones(len(coupling), np.float32)
    size = 1.0
    for _ in range(POWER_STEPS):
        vector = coupling @ vector + vector
        size = float(np.linalg.norm(vector))
        vector /= np.float32(size)
    return size


def _move(fit: Fit, shadow: Array, rate: np.float32, pool: Pool) -> None:
    gaps = np.diff(fit.levels, axis=1) / 2
    up = np.concatenate([gaps, gaps[:, -1:]], axis=1).ravel()
    down = np.concatenate([gaps[:, :1], gaps], axis=1).ravel()

    def piece(part: slice) -> None:
        index = fit.index(part)
        shadow[:, part] -= np.clip(rate * fit.residual[:, part], -up[index], down[index])

    pool.map(piece, pieces(shadow.shape[1]))


def _nearest(fit: Fit, shadow: Array, pool: Pool) -> NDArray[np.uint8]:
    tables = fit.tables
    codes = np.zeros(shadow.shape, np.uint8)

    def piece(part: slice) -> None:
        for middle in tables.middles:
            codes[:, part] += shadow[:, part] > middle[part]

    pool.map(piece, pieces(shadow.shape[1]))
    return codes
