"""Sums over a text do not depend on how it is divided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.quantize.calibration.moments import mean_product
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]


def inputs(rows: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any),
    st.integers(1, 300),
    st.integers(1, 4),
    st.sampled_from([1, 7, 50, 4096]),
)
def test_divided_is_at_once(lengths: list[int], columns: int, threads: int, rows: int) -> None:
    x, y = inputs(sum(lengths), columns), inputs(sum(lengths), columns, 1)
    ends = np.cumsum(lengths)[:-1]
    parts = list(zip(np.split(x, ends), np.split(y, ends), strict=True))
    with Pool(threads) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgedec.quantize.calibration.moments.ROWS", rows)
        tokens, square = mean_product(((a, a) for a, _ in parts), pool)
        _, product = mean_product(iter(parts), pool)
    assert tokens == len(x)
    for found, left, right in ((square, x, x), (product, x, y)):
        expected = left.T.astype(np.float64) @ right / len(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("columns", [2048, 2100])
def test_many_columns(columns: int) -> None:
    x = inputs(20, columns)
    with Pool(2) as pool:
        tokens, square = mean_product([(x, x)], pool)
    np.testing.assert_allclose(square, x.T @ x / tokens, atol=1e-5)


@pytest.mark.parametrize("columns", [5, 128, 129, 700])
def test_threads_change_nothing(columns: int) -> None:
    x, y = inputs(900, columns), inputs(900, columns, 1)
    results = []
    for threads in (1, 3):
        with Pool(threads) as pool:
            results.append([mean_product([pair], pool)[1] for pair in ((x, x), (x, y))])
    assert all((a == b).all() for a, b in zip(*results, strict=True))
