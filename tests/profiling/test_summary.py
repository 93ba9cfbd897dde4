"""Percentiles, mean and deviation against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.runtime.profiling.summary import median, percentile, summarize

VALUES = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=60)


@given(VALUES)
def test_summaries_are_those_of_numpy(values: list[float]) -> None:
    found = summarize(values)
    assert found.n == len(values)
    expected = np.percentile(values, [50, 90, 99])
    np.testing.assert_allclose([found.p50, found.p90, found.p99], expected, rtol=1e-12)
    np.testing.assert_allclose(found.mean, np.mean(values), rtol=1e-12)
    assert (found.min, found.max) == (min(values), max(values))
    if len(values) > 1:
        assert found.sd is not None
        scale = max(values)  # numpy's own sums are no closer
        np.testing.assert_allclose(found.sd, np.std(values, ddof=1), rtol=1e-9, atol=1e-12 * scale)


@given(VALUES, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    np.testing.assert_allclose(found, np.percentile(values, percent), rtol=1e-9)
    assert min(values) <= found <= max(values)


@given(VALUES)
def test_a_summary_is_in_order(values: list[float]) -> None:
    found = summarize(values)
    assert found.min <= found.p50 <= found.p90 <= found.p99 <= found.max
    assert found.min <= found.mean <= found.max
    assert found == summarize(reversed(values))
    assert median(values) == found.p50


@given(st.floats(1e-6, 1e9), st.integers(2, 50))
def test_equal_values_have_no_deviation(value: float, n: int) -> None:
    found = summarize([value] * n)
    assert (found.p50, found.p99, found.mean, found.sd) == (value, value, value, 0.0)


def test_one_value_says_nothing_about_deviation() -> None:
    assert summarize([2.0]).sd is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_nothing_is_no_summary(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        summarize(values)
