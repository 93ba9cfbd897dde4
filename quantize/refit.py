"""Closed-form fits of levels and scales to codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import seven_bits
from edgedec.quantize.fit import Fit
from edgedec.quantize.pool import Pool
from edgedec.quantize.products import pieces

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

STEPS = 3
"""Of conjugate gradients; each costs a product."""


def refit_levels(fit: Fit, pool: Pool, steps: int = STEPS) -> None:
    """Move the levels of all groups towards the least-squares ones of their codes.

    Conjugate gradients with the diagonal as preconditioner, every group with step sizes of its own:
    the objective of no group rises. Levels without codes stay. Levels are no integers afterwards
    and may have changed their order.
    """
    shape = fit.levels.shape
    residual = -_by_level(fit, fit.residual, pool)
    mass = _by_level(fit, None, pool)
    alive = mass > 0
    mass[~alive] = 1
    scaled = residual / mass
    direction = scaled
    slope = (residual * scaled).sum(axis=1)
    levels = fit.levels.astype(np.float64)
    product = np.empty_like(fit.values)
    for _ in range(steps):
        _apply(fit, direction.astype(np.float32), product, pool)
        bent = _by_level(fit, product, pool)
        curve = (direction * bent).sum(axis=1)
        step = np.where(curve > 0, slope / np.where(curve > 0, curve, 1), 0)[:, None]
        levels += step * direction
        _add(fit, step[:, 0].astype(np.float32), product, pool)
        residual = residual - step * bent
        scaled = residual / mass
        before, slope = slope, (residual * scaled).sum(axis=1)
        ratio = np.where(before > 0, slope / np.where(before > 0, before, 1), 0)
        direction = scaled + ratio[:, None] * direction
    fit.levels = levels.astype(np.float32).reshape(shape)
    fit.look_up(pool)


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


def round_levels(fit: Fit, pool: Pool) -> None:
    """Sort levels, make them integers within +-63; scales take over the rest.

    The residual is of no use afterwards.
    """
    order = np.argsort(fit.levels, axis=1, kind="stable")
    if (np.diff(order, axis=1) != 1).any():
        fit.levels = np.take_along_axis(fit.levels, order, axis=1)
        new = np.argsort(order, axis=1).astype(np.uint8)

        def piece(part: slice) -> None:
            fit.codes[:, part] = new.ravel()[fit.index(part)]

        pool.map(piece, _parts(fit))
    integers, unit = seven_bits(fit.levels)
    fit.levels = integers.astype(np.float32)
    fit.rescale(np.where(unit > 0, unit, 1)[fit.group])
    fit.look_up(pool)


def _parts(fit: Fit) -> list[slice]:
    return list(pieces(fit.codes.shape[1]))


def _by_level(fit: Fit, array: Array | None, pool: Pool) -> Doubles:
    """Sums of ``h * importance * array`` over the weights of each level, ``[G, 2**bits]``."""
    size = fit.levels.size

    def piece(part: slice) -> Doubles:
        worth = fit.curvature.diagonal[:, None] * fit.importance[part]
        if array is not None:
            worth *= array[:, part]
        return np.bincount(fit.index(part).ravel(), worth.ravel(), size)

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
