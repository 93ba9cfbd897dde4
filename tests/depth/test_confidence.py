"""Measures of confidence, by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgedec.runtime.depth.confidence import probability, similarity, softmax_diff, softmax_max

LOGITS = np.log(np.array([[5, 2, 1, 2], [1, 1, 1, 1], [0.5, 6, 3, 0.5]], np.float32))


def test_by_hand() -> None:
    np.testing.assert_allclose(softmax_max(LOGITS), [0.5, 0.25, 0.6], rtol=1e-6)
    np.testing.assert_allclose(softmax_diff(LOGITS), [0.3, 0, 0.3], atol=1e-7)
    assert abs(probability(LOGITS[0], 2) - 0.1) < 1e-7
    before = np.array([[3, 4], [1, 0], [1, 1], [0, 0]], np.float32)
    after = np.array([[6, 8], [0, 2], [-1, -1], [1, 0]], np.float32)
    np.testing.assert_allclose(similarity(before, after), [1, 0, -1, 0], atol=1e-6)
    assert similarity(None, after).tolist() == [-1] * 4


def test_huge_and_excluded_logits() -> None:
    logits = np.array([[3e38, -3e38, 0], [-np.inf, 7, -np.inf]], np.float32)
    with np.errstate(over="ignore"):  # the difference of the two is -inf, as it should
        assert softmax_max(logits).tolist() == softmax_diff(logits).tolist() == [1, 1]


@given(arrays(np.float32, (3, 9), elements=st.floats(-50, 50, width=32)))
def test_as_defined(logits: np.ndarray) -> None:
    exact = np.exp(logits.astype(np.float64))
    exact = np.sort(exact / exact.sum(axis=1, keepdims=True), axis=1)
    before = logits.copy()
    np.testing.assert_allclose(softmax_max(logits), exact[:, -1], atol=1e-5)
    np.testing.assert_allclose(softmax_diff(logits), exact[:, -1] - exact[:, -2], atol=1e-5)
    np.testing.assert_array_equal(logits, before)
