"""Least-squares levels and scales, and their rounding to integers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.quantize.problems import BITS, ROWS, SEEDS, SHAPES, Array, matrix, objective, statistics

from edgedec.quantize.codebook import seven_bits
from edgedec.quantize.fitting.damping import curvature, damped
from edgedec.quantize.fitting.fit import Doubles, Fit
from edgedec.quantize.fitting.levels import as_integers, split_worst
from edgedec.quantize.fitting.refit import refit_levels, refit_scales, round_levels
from edgedec.quantize.fitting.start import feed_back, start
from edgedec.quantize.pool import Pool


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


def fitted(
    pool: Pool, shape: tuple[int, int], bits: int, seed: int, kind: str = "normal"
) -> tuple[Fit, Array]:
    """A fit with two groups after error feedback, and H over its mean, in the fit's order."""
    hessian = damped(statistics("correlated", shape[1], seed).plain, 0.1)
    bend = curvature(hessian)
    cut = min(shape[0], 16)
    starts = np.unique([0, cut, shape[0]]).astype(np.intp)
    fit = start(matrix(kind, shape, seed), starts, bend, bits, pool)
    feed_back(fit, pool)
    return fit, hessian[np.ix_(bend.order, bend.order)] / np.diag(hessian).mean()


def by_row(fit: Fit, hessian: Array) -> Doubles:
    """The objective of each row, over the square of its scale."""
    pairs = zip(fit.values.T, fit.target.T, strict=True)
    return np.array([objective(v[None], t[None], hessian) for v, t in pairs])


@given(SHAPES, BITS, st.sampled_from(sorted(ROWS)), SEEDS)
@settings(max_examples=40)
def test_levels_never_make_it_worse(
    pool: Pool, shape: tuple[int, int], bits: int, kind: str, seed: int
) -> None:
    fit, _ = fitted(pool, shape, bits, seed, kind)
    before = fit.objective(pool)
    refit_levels(fit, pool)
    after = fit.objective(pool)
    assert (after <= before * (1 + 1e-5) + 1e-6 * fit.energy(pool)).all()
    claimed = fit.residual.copy()
    fit.measure(pool)
    np.testing.assert_allclose(claimed, fit.residual, atol=1e-4 * np.abs(fit.pull).max())


def test_levels_become_those_of_least_squares(pool: Pool) -> None:
    """Repeated, the step ends where no other levels are better: at the solution of a system."""
    fit, hessian = fitted(pool, (40, 24), 2, 0)
    for _ in range(200):
        refit_levels(fit, pool)
    for group, (first, last) in enumerate(zip(fit.starts[:-1], fit.starts[1:], strict=True)):
        system, right = np.zeros((4, 4)), np.zeros(4)
        for row in range(first, last):
            pick = (fit.codes[:, row, None] == np.arange(4)) * fit.importance[row] ** 0.5
            system += pick.T @ hessian @ pick
            right += pick.T @ hessian @ fit.target[:, row] * fit.importance[row] ** 0.5
        np.testing.assert_allclose(fit.levels[group], np.linalg.solve(system, right), rtol=1e-3)


@given(SHAPES, BITS, SEEDS)
@settings(max_examples=30)
def test_no_scale_is_better(pool: Pool, shape: tuple[int, int], bits: int, seed: int) -> None:
    fit, hessian = fitted(pool, shape, bits, seed)
    before, units = by_row(fit, hessian), fit.scale.copy()
    refit_scales(fit, pool)
    # objectives count in units of the scale
    ratio = (fit.scale / units) ** 2
    after = by_row(fit, hessian) * ratio
    allowed = 1e-5 * by_row_of_zeros(fit, hessian) * ratio
    assert (after <= before + allowed).all()
    for factor in (0.99, 1.01):
        fit.values *= np.float32(factor)
        assert (after <= by_row(fit, hessian) * ratio + allowed).all()
        fit.values /= np.float32(factor)


def by_row_of_zeros(fit: Fit, hessian: Array) -> Doubles:
    return np.array([objective(np.zeros_like(t)[None], t[None], hessian) for t in fit.target.T])


def test_rounding_sorts_levels_and_keeps_what_codes_stand_for(pool: Pool) -> None:
    fit, _ = fitted(pool, (40, 30), 3, 0)
    mass = refit_levels(fit, pool)
    fit.levels = fit.levels[:, ::-1].copy()
    fit.codes = (7 - fit.codes).astype(np.uint8)
    before = fit.values * fit.scale
    round_levels(fit, mass[:, ::-1], pool)
    assert (np.diff(fit.levels, axis=1) >= 0).all()
    np.testing.assert_array_equal(fit.levels, np.rint(fit.levels))
    step = np.abs(before).max() / 63
    np.testing.assert_allclose(fit.values * fit.scale, before, rtol=0, atol=1.5 * step)


def test_levels_without_codes_come_back(pool: Pool) -> None:
    fit, _ = fitted(pool, (32, 64), 2, 0)
    fit.codes[fit.codes == 3] = 2
    fit.look_up(pool)
    fit.measure(pool)
    fit.levels[:, 3] = fit.levels[:, 2]
    mass = refit_levels(fit, pool)
    assert (mass[:, 3] == 0).all()
    assert (fit.levels[:, 3] != fit.levels[:, 2]).all()
    inside = np.abs(fit.target).max()
    assert (np.abs(fit.levels) < inside).all()


LEVELS = hnp.arrays(np.float64, (3, 8), elements=st.floats(-1e6, 1e6, width=32))


@given(LEVELS, hnp.arrays(np.float64, (3, 8), elements=st.floats(0, 1e3, width=32)))
def test_integers(levels: Doubles, mass: Doubles) -> None:
    levels.sort(axis=1)
    integers, unit = as_integers(levels, mass)
    assert (np.diff(integers, axis=1) >= 0).all()
    assert (unit > 0).all()
    used = levels.any(axis=1)
    assert (np.abs(integers[used]).max(axis=1) == 63).all()
    np.testing.assert_array_equal(seven_bits(integers)[0], integers)
    # dividing the largest by 63 is one of the choices
    plain, step = seven_bits(levels)
    loss = (mass * (integers * unit[:, None] - levels) ** 2).sum(axis=1)
    assert (loss <= (mass * (plain * step[:, None] - levels) ** 2).sum(axis=1) * (1 + 1e-9)).all()


def test_a_huge_level_of_few_weights_does_not_take_all_integers() -> None:
    levels = np.array([[-1.0, -0.3, 0.4, 200.0]])
    integers, unit = as_integers(levels, np.array([[100.0, 100.0, 100.0, 1e-3]]))
    np.testing.assert_allclose(integers[0, :3] * unit, levels[0, :3], atol=0.15)


def test_the_worst_level_is_split() -> None:
    levels = np.array([0.0, 5.0, 9.0])
    split_worst(
        levels, np.array([False, True, False]), np.array([1.0, 0, 8.0]), np.array([4.0, 0, 2.0])
    )
    np.testing.assert_array_equal(levels, [0, 11, 9])
