"""Closed-form fits of levels and scales to codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.fitting.fit import Fit
from edgedec.quantize.fitting.levels import as_integers, split_worst
from edgedec.quantize.fitting.products import pieces
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]


def refit_levels(fit: Fit, pool: Pool) -> Doubles:
    """Move the levels of each group towards the least-squares ones of its codes.

    One step along the gradient over the diagonal of the least-squares system, as far as the
    objective falls: it costs one product, where the system would cost one per level. Rounds repeat
    it, and more steps per round gain nothing that can be measured, because codes move as well. No
    group's objective rises. Levels without codes move beside those that lose most. Levels are no
    integers afterwards and may have changed their order.
    """
    slope, mass = slopes(fit, pool)
    dead = mass <= 0
    direction = np.where(dead, 0, slope / np.where(dead, 1, mass))
    product = np.empty_like(fit.values)
    _apply(fit, direction.astype(np.float32), product, pool)
    curve = (direction * _by_level(fit, product, pool)).sum(axis=1)
    step = np.where(curve > 0, (slope * direction).sum(axis=1) / np.where(curve > 0, curve, 1), 0)
    fit.levels = (fit.levels + step[:, None] * direction).astype(np.float32)
    _add(fit, step.astype(np.float32), product, pool)
    if dead.any():
        _revive(fit, dead, mass, pool)
    fit.look_up(pool)
    return mass


def slopes(fit: Fit, pool: Pool) -> tuple[Doubles, Doubles]:
    """How the objective falls with each level, and the importance of its weights.

    Returns:
        Minus half the gradient, and the diagonal of half the second derivative if weights did not
        interact: ``[G, 2**bits]`` each.
    """
    return -_by_level(fit, fit.residual, pool), _by_level(fit, None, pool)


def refit_scales(fit: Fit, pool: Pool) -> None:
    """Give each row the scale that fits its codes best; those that would not be positive stay."""
    diagonal = fit.curvature.diagonal

    def piece(part: slice) -> tuple[Array, Array]:
        values, pull = fit.values[:, part], fit.pull[:, part]
        return diagonal @ (values * pull), diagonal @ (values * (fit.residual[:, part] + pull))

    gained, curved = (np.concatenate(x) for x in zip(*pool.map(piece, _parts(fit)), strict=True))
    good = (gained > 0) & (curved > 0)
    factor = np.where(good, gained / np.where(good, curved, 1), 1).astype(np.float64)
    fit.residual += fit.pull
    fit.rescale(factor)
    fit.residual -= fit.pull


def round_levels(fit: Fit, mass: Doubles, pool: Pool) -> None:
    """Sort levels, make them integers within +-63; scales take over the rest.

    ``mass`` is what `refit_levels` returned. The residual is of no use afterwards.
    """
    order = np.argsort(fit.levels, axis=1, kind="stable")
    if (np.diff(order, axis=1) != 1).any():
        fit.levels = np.take_along_axis(fit.levels, order, axis=1)
        mass = np.take_along_axis(mass, order, axis=1)
        new = np.argsort(order, axis=1).astype(np.uint8)

        def piece(part: slice) -> None:
            fit.codes[:, part] = new.ravel()[fit.index(part)]

        pool.map(piece, _parts(fit))
    fit.levels, unit = as_integers(fit.levels.astype(np.float64), mass)
    fit.rescale(unit[fit.group])
    fit.look_up(pool)


def _revive(fit: Fit, dead: NDArray[np.bool_], mass: Doubles, pool: Pool) -> None:
    """Give levels without codes a place where they may win some."""
    fit.look_up(pool)
    distance = fit.values - fit.target
    loss = _by_level(fit, distance * distance, pool)
    levels = fit.levels.astype(np.float64)
    for group in np.flatnonzero(dead.any(axis=1)):
        split_worst(levels[group], dead[group], loss[group], mass[group])
    fit.levels = levels.astype(np.float32)


def _parts(fit: Fit) -> list[slice]:
    return list(pieces(fit.codes.shape[1]))


def _by_level(fit: Fit, array: Array | None, pool: Pool) -> Doubles:
    """Sums of ``h * importance * array`` over the weights of each level, ``[G, 2**bits]``."""
    size = fit.levels.size

    def piece(part: slice) -> Doubles:
        worth = fit.curvature.diagonal[:, None] * fit.importance[part]
        if array is not None:
            worth *= array[:, part]
        return np.bincount(fit.index(part).ravel(), worth.ravel(), size).astype(np.float64)

    # in order, whichever was ready first
    total = np.zeros(size)
    for sums in pool.map(piece, _parts(fit)):
        total += sums
    return total.reshape(fit.levels.shape)


def _apply(fit: Fit, direction: Array, product: Array, pool: Pool) -> None:
    """``H / h`` times what a direction of the levels is for all weights."""

    def piece(part: slice) -> None:
        spread = direction.ravel()[fit.index(part)]
        np.matmul(fit.curvature.coupling, spread, out=product[:, part])
        product[:, part] += spread

    pool.map(piece, _parts(fit))


def _add(fit: Fit, step: Array, product: Array, pool: Pool) -> None:
    """What a step of each group along a direction does to the residual."""
    steps = step[fit.group]

    def piece(part: slice) -> None:
        fit.residual[:, part] += steps[part] * product[:, part]

    pool.map(piece, _parts(fit))
