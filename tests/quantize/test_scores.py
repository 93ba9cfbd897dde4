"""Distances between predictions, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from edgedec.quantize.calibration.scores import (
    LEAST,
    Deviation,
    Sums,
    compare_arrays,
    compare_logits,
)


@given(
    st.integers(1, 4), st.integers(1, 90), st.integers(2, 30), st.floats(0, 5), st.integers(0, 99)
)
def test_definitions(rows: int, length: int, vocab: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.standard_normal((rows, length, vocab), np.float32) * 3
    other = one + np.float32(size) * rng.standard_normal(one.shape, np.float32)
    labels = rng.integers(0, vocab, (rows, length))
    mask = rng.random((rows, length)) < 0.7
    mask[0, 0] = True
    found = compare_logits(one, other, labels, mask).mean()
    p, q = (log_softmax(x[mask].astype(np.float64), axis=-1) for x in (one, other))
    count = np.arange(len(p))
    assert found.tokens == mask.sum()
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), abs=1e-12)
    assert found.kl >= 0
    assert found.agreement == (p.argmax(1) == q.argmax(1)).mean()
    assert found.loss_before == pytest.approx(-p[count, labels[mask]].mean())
    assert found.loss_after == pytest.approx(-q[count, labels[mask]].mean())


def test_a_shift_changes_nothing() -> None:
    logits = np.random.default_rng(0).standard_normal((2, 5, 9), np.float32)
    labels = np.zeros((2, 5), np.int64)
    found = compare_logits(logits, logits.copy(), labels, labels == 0)
    assert (found.kl, found.agreed) == (0, 10)
    # Large logits, such as padded vocabularies have, are no trouble.
    logits[..., 0] = -1e9
    shifted = compare_logits(logits, logits + np.float32(1e4), labels + 1, labels == 0).mean()
    assert shifted.kl == pytest.approx(0, abs=1e-4)
    assert np.isfinite(shifted.loss_after)


@given(st.integers(0, 99))
def test_masked_tokens(seed: int) -> None:
    """Minus infinity in both changes nothing: they are left out of the vocabulary."""
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((2, 3, 7, 12), np.float32) * 3
    masked = rng.random(12) < 0.5
    masked[4] = False
    labels = np.full((3, 7), 4)
    everywhere = labels > 0
    one[..., masked] = other[..., masked] = -np.inf
    found = compare_logits(one, other, labels, everywhere)
    few = np.flatnonzero(~masked)
    short = compare_logits(
        one[..., few], other[..., few], np.full((3, 7), np.searchsorted(few, 4)), everywhere
    )
    assert vars(found) == pytest.approx(vars(short), abs=1e-9)
    assert compare_logits(one, one.copy(), labels, everywhere).kl == 0


def test_tokens_masked_in_one_model() -> None:
    logits = np.zeros((1, 1, 4), np.float32)
    masked = logits.copy()
    masked[..., 3] = -np.inf
    labels, everywhere = np.zeros((1, 1), np.int64), np.ones((1, 1), np.bool_)
    # what the original never says costs nothing
    assert compare_logits(masked, logits, labels, everywhere).kl == pytest.approx(np.log(4 / 3))
    # what the changed one never says costs much, but not all figures
    found = compare_logits(logits, masked, labels, everywhere)
    assert found.kl == pytest.approx(0.75 * np.log(3 / 4) + 0.25 * (np.log(1 / 4) - LEAST))
    found = compare_logits(logits, masked, labels + 3, everywhere)
    assert found.loss_before == pytest.approx(np.log(4))
    assert found.loss_after == -LEAST
    # and rows without any token have no preference
    found = compare_logits(logits - np.inf, logits, labels, everywhere)
    assert found.kl == 0
    assert found.loss_before == pytest.approx(np.log(4))


def test_sums_add_up() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 3, 70, 11), np.float32)
    labels = rng.integers(0, 11, (3, 70))
    mask = labels > 2
    whole = compare_logits(one, other, labels, mask)
    parts = sum(
        (
            compare_logits(one[i : i + 1], other[i : i + 1], labels[i : i + 1], mask[i : i + 1])
            for i in range(3)
        ),
        Sums(),
    )
    assert vars(parts) == pytest.approx(vars(whole))


def test_outputs_are_compared_by_what_they_hold() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((4, 9), np.float32)
    other = one + rng.standard_normal(one.shape, np.float32)
    wanted = np.sqrt(((one - other) ** 2).mean() / (one**2).mean())
    parts = [compare_arrays(a, b) for a, b in zip(one, other, strict=True)]
    assert sum(parts, Deviation()).relative == pytest.approx(wanted)
    masked = np.where(one > 1, -np.inf, one)
    assert compare_arrays(masked, masked).relative == 0
    assert compare_arrays(one[:0], one[:0]).relative == 0
    assert compare_arrays(one * 0, one).relative == 1
    assert compare_arrays(one, other[:3]).relative == 1
    assert compare_arrays(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])).relative == 0.25
    assert compare_arrays(np.array([1, 2]), np.array([1])).relative == 1
    assert compare_arrays(np.array([True, False]), np.array([True, True])).relative == 0.5
