"""Groups of rows: complete, on whole blocks, and by distribution where asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quantize.problems import ROWS, SEEDS, SHAPES, matrix

from edgedec.quantize.grouping import Groups, by_distribution, contiguous, tails


def check(found: Groups, rows: int, groups: int) -> None:
    """What codebooks need."""
    starts = found.starts
    assert starts[0] == 0
    assert starts[-1] == rows
    assert (np.diff(starts) > 0).all()
    assert (starts[:-1] % 16 == 0).all()
    assert len(starts) - 1 == min(groups, -(-rows // 16))


@given(st.integers(1, 3000), st.integers(1, 40))
def test_contiguous(rows: int, groups: int) -> None:
    found = contiguous(rows, groups)
    check(found, rows, groups)
    assert found.order is None
    blocks = -(-np.diff(found.starts) // 16)
    assert blocks.max() - blocks.min() <= 1


@given(st.sampled_from(sorted(ROWS)), SHAPES, st.integers(1, 6), SEEDS)
def test_by_distribution(kind: str, shape: tuple[int, int], groups: int, seed: int) -> None:
    weight = matrix(kind, shape, seed)
    found = by_distribution(weight, groups)
    check(found, shape[0], groups)
    order = np.arange(shape[0]) if found.order is None else found.order
    np.testing.assert_array_equal(np.sort(order), np.arange(shape[0]))
    assert (np.diff(tails(weight)[order]) >= 0).all()


def test_the_cuts_are_the_best_ones() -> None:
    weight = matrix("few huge weights", (110, 60), 0)
    found = by_distribution(weight, 3)
    ascending = np.sort(tails(weight))

    def loss(cuts: tuple[int, ...]) -> float:
        return float(sum(((x - x.mean()) ** 2).sum() for x in np.split(ascending, cuts)))

    best = min(itertools.combinations(range(16, 110, 16), 2), key=loss)
    np.testing.assert_array_equal(found.starts, [0, *best, 110])


def test_rows_with_huge_weights_get_groups_of_their_own() -> None:
    weight = matrix("normal", (160, 200), 0)
    weight[3::5, 9] *= 50
    found = by_distribution(weight, 2)
    assert found.order is not None
    np.testing.assert_array_equal(np.sort(found.order[128:]), np.arange(3, 160, 5))
    np.testing.assert_array_equal(found.starts, [0, 128, 160])


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_tails_do_not_depend_on_size(size: float) -> None:
    weight = matrix("normal", (5, 4000), 0) * np.float32(size)
    np.testing.assert_allclose(tails(weight), np.log(3), atol=0.2)
    assert (tails(np.zeros((2, 3), np.float32)) == 0).all()


def test_very_many_rows_are_cut_less_finely() -> None:
    weight = np.random.default_rng(0).standard_normal((40000, 2)).astype(np.float32)
    check(by_distribution(weight, 4), 40000, 4)
