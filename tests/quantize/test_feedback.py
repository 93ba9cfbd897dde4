"""Error feedback against GPTQ written down as published, column by column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.quantize.problems import BITS, SEEDS, SHAPES, Array, matrix, objective, statistics

from edgedec.quantize.fitting import columns as module
from edgedec.quantize.fitting.damping import curvature, damped
from edgedec.quantize.fitting.feedback import error_feedback
from edgedec.quantize.pool import Pool


def slowly(
    weight: Array, unit: Array, books: Array, group: NDArray[np.intp], hessian: Array
) -> Array:
    """GPTQ's loop (arXiv 2210.17323, section 3) with an inverse for every column; the values."""
    left = weight.astype(np.float64).copy()
    values = np.zeros_like(left)
    order = list(np.argsort(-np.diag(hessian), kind="stable"))
    while order:
        inverse = np.linalg.inv(hessian[np.ix_(order, order)].astype(np.float64))
        first, others = order[0], order[1:]
        levels = books[group] * unit[:, first, None]
        choice = np.abs(levels - left[:, first, None]).argmin(axis=1)
        values[:, first] = levels[np.arange(len(left)), choice]
        error = (left[:, first] - values[:, first]) / inverse[0, 0]
        left[:, others] -= error[:, None] * inverse[0, 1:]
        order = others
    return values.astype(np.float32)


@given(SHAPES, BITS, st.booleans(), st.integers(1, 3), SEEDS)
@settings(max_examples=40)
def test_as_published(
    shape: tuple[int, int], bits: int, units: bool, groups: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = matrix("normal", shape, seed)
    hessian = damped(statistics("correlated", shape[1], seed).plain, 0.1)
    books = np.sort(rng.standard_normal((groups, 1 << bits)), axis=1).astype(np.float32)
    group = rng.integers(0, groups, shape[0])
    scale = rng.uniform(0.5, 2, shape if units else shape[:1]).astype(np.float32)
    with Pool(2) as pool:
        codes = error_feedback(weight, scale, books, group, curvature(hessian), pool)
    spread = np.broadcast_to(scale if units else scale[:, None], shape)
    values = books[group[:, None], codes] * spread
    expected = slowly(weight, spread, books, group, hessian)
    # A weight half-way between levels may be rounded either way, and then its row goes on
    # differently: rows are compared, and a few may differ.
    equal = np.isclose(values, expected, rtol=1e-5, atol=1e-5).all(axis=1)
    assert equal.mean() > 0.9 or (~equal).sum() <= 1


@pytest.mark.parametrize(("block", "slab"), [(1, 5), (7, 64), (64, 2304)])
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, block: int, slab: int) -> None:
    weight = matrix("normal", (40, 90), 1)
    bend = curvature(damped(statistics("correlated", 90, 1).plain, 0.1))
    books = np.linspace(-2, 2, 8, dtype=np.float32)[None]
    scale, group = np.ones(40, np.float32), np.zeros(40, np.intp)
    with Pool(1) as pool:
        whole = error_feedback(weight, scale, books, group, bend, pool)
        for name in ("columns", "feedback"):
            monkeypatch.setattr(f"edgedec.quantize.fitting.{name}.BLOCK", block)
        monkeypatch.setattr("edgedec.quantize.fitting.feedback.SLAB", slab)
        assert block == module.BLOCK
        split = error_feedback(weight, scale, books, group, bend, pool)
    # float32 sums in another order: a weight half-way between levels may change
    assert (whole == split).mean() > 0.98


def test_feedback_beats_the_nearest_level() -> None:
    weight = matrix("normal", (64, 128), 0)
    hessian = damped(statistics("correlated", 128, 0).plain, 0.1)
    books = np.linspace(-2.5, 2.5, 16, dtype=np.float32)[None]
    group = np.zeros(64, np.intp)
    with Pool(1) as pool:
        codes = error_feedback(
            weight, np.ones(64, np.float32), books, group, curvature(hessian), pool
        )
    nearest = books[0, np.abs(weight[..., None] - books[0]).argmin(axis=2)]
    assert objective(books[0, codes], weight, hessian) < 0.5 * objective(nearest, weight, hessian)


def test_inputs_that_do_not_interact_leave_the_nearest_level() -> None:
    weight = matrix("heavy tails", (33, 70), 0)
    books = np.array([[-3.0, -1.0, 0.5, 4.0]], np.float32)
    moments = np.diag(np.arange(70.0, 0, -1)).astype(np.float32)
    with Pool(1) as pool:
        codes = error_feedback(
            weight,
            np.ones(33, np.float32),
            books,
            np.zeros(33, np.intp),
            curvature(damped(moments, 0)),
            pool,
        )
    np.testing.assert_array_equal(codes, np.abs(weight[..., None] - books[0]).argmin(axis=2))


@pytest.mark.parametrize(
    ("levels", "scale", "sentence"),
    [([[1.0, 0.0]], 1.0, "ascend"), ([[0.0, 1.0]], 0.0, "positive"), ([[0.0, 1.0]], np.nan, "pos")],
)
def test_refuses(levels: list[list[float]], scale: float, sentence: str) -> None:
    bend = curvature(np.eye(3, dtype=np.float32))
    weight, group = np.ones((2, 3), np.float32), np.zeros(2, np.intp)
    with Pool(1) as pool, pytest.raises(ValueError, match=sentence):
        error_feedback(
            weight,
            np.full(2, scale, np.float32),
            np.array(levels, np.float32),
            group,
            bend,
            pool,
        )
