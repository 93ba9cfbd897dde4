"""Coordinate descent against trying everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from tests.quantize.problems import BITS, SEEDS, SHAPES, Array, matrix, objective, statistics

from edgedec.quantize.fitting.columns import Tables
from edgedec.quantize.fitting.damping import Curvature, curvature, damped
from edgedec.quantize.fitting.descent import descend
from edgedec.quantize.pool import Pool

Codes = NDArray[np.uint8]


def problem(
    shape: tuple[int, int], bits: int, seed: int
) -> tuple[Array, Array, Curvature, Array, Codes, Tables]:
    """Targets and H in the order of the curvature; levels, codes, tables."""
    rng = np.random.default_rng(seed)
    hessian = damped(statistics("correlated", shape[1], seed).plain, 0.1)
    bend = curvature(hessian)
    target = matrix("normal", shape, seed)[:, bend.order]
    books = np.sort(rng.standard_normal((2, 1 << bits)), axis=1).astype(np.float32)
    group = rng.integers(0, 2, shape[0])
    codes = rng.integers(0, 1 << bits, shape).astype(np.uint8)
    hessian = hessian[np.ix_(bend.order, bend.order)]
    return target, hessian, bend, books[group], codes, Tables.of(books, group)


def sweep(
    target: Array, bend: Curvature, tables: Tables, codes: Codes, values: Array
) -> tuple[Codes, Array]:
    codes, values = np.ascontiguousarray(codes.T), np.ascontiguousarray(values.T)
    pull = np.ascontiguousarray(bend.coupling @ target.T + target.T)
    with Pool(2) as pool:
        descend(pull, tables, bend.coupling, pool, codes, values)
    return codes.T, values.T


@given(SHAPES, BITS, SEEDS)
@settings(max_examples=50)
def test_no_sweep_raises_the_objective_of_a_row(
    shape: tuple[int, int], bits: int, seed: int
) -> None:
    target, hessian, bend, levels, codes, tables = problem(shape, bits, seed)
    values = np.take_along_axis(levels, codes.astype(np.intp), axis=1)
    for _ in range(3):
        before = values
        codes, values = sweep(target, bend, tables, codes, values)
        np.testing.assert_array_equal(
            values, np.take_along_axis(levels, codes.astype(np.intp), axis=1)
        )
        for row in range(shape[0]):
            part = slice(row, row + 1)
            now = objective(values[part], target[part], hessian)
            assert now <= objective(before[part], target[part], hessian) * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_no_single_code_can_be_improved_in_the_end(seed: int) -> None:
    """All codes of all weights are tried, one at a time."""
    target, hessian, bend, levels, codes, tables = problem((6, 9), 2, seed)
    values = np.take_along_axis(levels, codes.astype(np.intp), axis=1)
    for _ in range(30):
        codes, values = sweep(target, bend, tables, codes, values)
    for row in range(6):
        part = slice(row, row + 1)
        best = objective(values[part], target[part], hessian)
        for column in range(9):
            for level in levels[row]:
                other = values[part].copy()
                other[0, column] = level
                assert objective(other, target[part], hessian) >= best * (1 - 1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_sweep_is_one_exact_step_per_weight(seed: int) -> None:
    """The same as choosing each code by trying all, column after column; blocks hide nothing."""
    target, hessian, bend, levels, codes, tables = problem((5, 70), 3, seed)
    values = np.take_along_axis(levels, codes.astype(np.intp), axis=1)
    expected = values.astype(np.float64)
    exact = hessian.astype(np.float64)
    for column in range(70):
        error = expected - target
        rest = error @ exact[:, column] - error[:, column] * exact[column, column]
        wish = target[:, column] - rest / exact[column, column]
        choice = np.abs(levels - wish[:, None]).argmin(axis=1)
        expected[:, column] = levels[np.arange(5), choice]
    _, values = sweep(target, bend, tables, codes, values)
    np.testing.assert_array_equal(values, expected.astype(np.float32))
