"""A table for every row, against exhaustive search and the laws of k-means."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgedec.quantize.baselines.kmeans_rows import cluster_rows, kmeans_rows, row_table_bits

BITS = st.sampled_from([2, 3, 4])
WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-(2.0**10), 2.0**10, width=16),
)


@given(WEIGHTS, BITS, st.integers(0, 1000))
def test_any_matrix(weight: NDArray[np.float32], bits: int, seed: int) -> None:
    importance = np.random.default_rng(seed).exponential(size=weight.shape[1:]).astype(np.float32)
    importance[importance < 0.3] = 0
    values = kmeans_rows(weight, importance, bits)
    assert values.shape == weight.shape
    for row, found in zip(weight, values, strict=True):
        # integers of 8 bits times a scale of float16 say that there are few and how fine they are
        assert len(np.unique(found)) <= 1 << bits
        largest = float(np.abs(row).max())
        assert np.abs(found).max() <= 1.01 * largest + 1e-5
        if len(np.unique(row)) <= 1 << bits:
            # what has a level of its own loses the rounding of levels and scale only
            np.testing.assert_allclose(found, row, atol=0.005 * largest + 1e-5)
    # another matrix beside it changes nothing
    beside = kmeans_rows(np.concatenate([weight * 3, weight]), importance, bits)
    np.testing.assert_array_equal(beside[len(weight) :], values)


def test_one_row_against_all_partitions() -> None:
    """1-D clusters are intervals, so for few weights every partition can be tried."""
    ratios = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        weight = np.sort(random.uniform(-1, 1, 12))
        importance = random.exponential(size=12)

        def loss(cuts: tuple[int, ...], w: Any = weight, h: Any = importance) -> float:
            parts = zip(np.split(w, cuts), np.split(h, cuts), strict=True)
            return float(sum((q * (p - np.average(p, weights=q)) ** 2).sum() for p, q in parts))

        best = min(loss(cuts) for cuts in itertools.combinations(range(1, 12), 3))
        levels = cluster_rows(weight[None], importance[None], 4)[0]
        found = (importance * np.abs(levels[:, None] - weight).min(axis=0) ** 2).sum()
        ratios.append(found / best)
    assert min(ratios) > 1 - 1e-9
    assert np.median(ratios) < 1.05
    assert max(ratios) < 3


@given(WEIGHTS, BITS)
def test_levels_are_the_means_of_their_clusters(weight: NDArray[np.float32], bits: int) -> None:
    ordered = np.sort(weight.astype(np.float64) / 2**10, axis=1)
    importance = np.random.default_rng(0).uniform(0.1, 1, ordered.shape)
    levels = cluster_rows(ordered, importance, 1 << bits)
    assert (np.diff(levels, axis=1) >= 0).all()
    assert levels.min() >= ordered.min() - 1e-12
    assert levels.max() <= ordered.max() + 1e-12

    def loss(some: NDArray[np.float64]) -> float:
        distance = np.abs(some[:, None, :] - ordered[:, :, None]).min(axis=2)
        return float((importance * distance**2).sum())

    codes = np.abs(levels[:, None, :] - ordered[:, :, None]).argmin(axis=2)
    means = levels.copy()
    for row, code in itertools.product(range(len(levels)), range(1 << bits)):
        chosen = codes[row] == code
        if chosen.any():
            means[row, code] = np.average(ordered[row, chosen], weights=importance[row, chosen])
    # a further step gains nothing worth while
    assert loss(levels) <= 1.01 * loss(means) + 1e-12


def test_important_inputs_are_nearer() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((64, 512)).astype(np.float32)
    importance = np.exp(2 * random.standard_normal(512)).astype(np.float32)
    plain = kmeans_rows(weight, np.ones(512, np.float32), 3) - weight
    weighted = kmeans_rows(weight, importance, 3) - weight
    assert (weighted**2 @ importance).sum() < 0.8 * (plain**2 @ importance).sum()
    assert (plain**2).sum() < (weighted**2).sum()


# The quantizer of a normal distribution (Max 1960, table I); a table of 2048 weights fits better.
@pytest.mark.parametrize(("bits", "best"), [(2, 0.1175), (3, 0.03454), (4, 0.009497)])
def test_normal_weights_come_near_the_optimum(bits: int, best: float) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 2048)).astype(np.float32)
    values = kmeans_rows(weight, np.ones(2048, np.float32), bits)
    error = np.linalg.norm(values - weight) / np.linalg.norm(weight)
    assert error == pytest.approx(best**0.5, rel=0.03)


def test_inputs_that_are_always_zero() -> None:
    weight = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
    dead = np.zeros(64, np.float32)
    np.testing.assert_array_equal(
        kmeans_rows(weight, dead, 4), kmeans_rows(weight, dead + np.float32(1), 4)
    )
    dead[:3] = 1
    assert np.abs(kmeans_rows(weight, dead, 4) - weight)[:, :3].max() < 0.02


def test_what_a_weight_takes() -> None:
    # 16 levels of 8 bits and a scale of 16 bits for 768 weights
    assert row_table_bits(768, 4) == pytest.approx(4 + (128 + 16) / 768)


def test_refuses() -> None:
    with pytest.raises(ValueError, match="NaN"):
        kmeans_rows(np.array([[np.nan]], np.float32), np.ones(1, np.float32), 4)
