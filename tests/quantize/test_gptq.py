"""GPTQ against its textbook form, and where it has nothing to make up with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.quantize.baselines.fixed import half
from edgedec.quantize.baselines.gptq import BLOCK, gptq, gptq_blocks, gptq_codebook
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.method import Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Statistics

Array = NDArray[np.float32]
SETTINGS = Settings(damping=0.05)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


def problem(rows: int, columns: int, seed: int = 0) -> tuple[Array, Statistics]:
    random = np.random.default_rng(seed)
    mix = np.eye(columns) + random.standard_normal((columns, columns)) / columns**0.5
    inputs = random.standard_normal((4 * columns, columns)) @ mix
    plain = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    weight = random.standard_normal((rows, columns)).astype(np.float32)
    return weight, Statistics(len(inputs), plain, plain, None)


def textbook(weight: Array, tables: NDArray[Any], statistics: Statistics) -> NDArray[np.float64]:
    """Algorithm 1 of the paper without its blocks; ``tables [N, K, levels]`` is the choice."""
    moments = statistics.inputs.astype(np.float64)
    moments += SETTINGS.damping * np.diag(moments).mean() * np.eye(len(moments))
    order = np.argsort(-np.diag(moments), kind="stable")
    factor = np.linalg.cholesky(np.linalg.inv(moments[np.ix_(order, order)])).T
    left = weight[:, order].astype(np.float64)
    result = np.empty(weight.shape)
    for i, column in enumerate(order):
        table = tables[:, column]
        codes = np.abs(table - left[:, i, None]).argmin(axis=1)
        chosen = table[np.arange(len(table)), codes]
        left[:, i:] -= np.outer((left[:, i] - chosen) / factor[i, i], factor[i, i:])
        result[:, column] = chosen
    return result


def close(found: Array, expected: NDArray[np.float64]) -> bool:
    """In float32 a few weights may fall to the other side of a border, and others after them."""
    same = np.isclose(found, expected, rtol=1e-4, atol=1e-6)
    return bool(same.mean() > 0.97 and same.all(axis=1).mean() > 0.85)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_rows_are_the_textbook_s(bits: int, pool: Pool) -> None:
    weight, statistics = problem(60, 150)
    (tensor,) = gptq([weight], statistics, bits, SETTINGS, pool)
    table = tensor.codebooks[0] * tensor.row_scale[:, None].astype(np.float64)
    tables = np.broadcast_to(table[:, None], (*weight.shape, 1 << bits))
    assert close(tensor.dequantize(), textbook(weight, tables, statistics))
    # the largest weight has a level, whatever its sign
    nearest = np.abs(table[:, None, :] - weight[:, :, None]).min(axis=2)
    where = np.abs(weight).argmax(axis=1)
    assert nearest[np.arange(60), where].max() < 1e-6


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codebooks_are_the_textbook_s(bits: int, pool: Pool) -> None:
    weight, statistics = problem(80, 150)
    (tensor,) = gptq_codebook([weight], statistics, bits, SETTINGS, pool)
    start = kmeans(weight, bits)
    np.testing.assert_array_equal(tensor.codebooks, start.codebooks)
    np.testing.assert_array_equal(tensor.row_scale, start.row_scale)
    table = start.codebooks[start.group_of_row] * start.row_scale[:, None].astype(np.float64)
    tables = np.broadcast_to(table[:, None], (*weight.shape, 1 << bits))
    assert close(tensor.dequantize(), textbook(weight, tables, statistics))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_blocks_are_the_textbook_s(bits: int, pool: Pool) -> None:
    weight, statistics = problem(60, 150)
    (values,) = gptq_blocks([weight], statistics, bits, SETTINGS, pool)
    levels = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    scale = np.empty(weight.shape, np.float32)
    for first in range(0, 150, BLOCK):
        part = slice(first, first + BLOCK)
        largest = np.abs(weight[:, part]).max(axis=1, keepdims=True)
        scale[:, part] = half(largest / np.float32(-levels[0]))
    tables = levels * scale[:, :, None].astype(np.float64)
    assert close(values, textbook(weight, tables, statistics))


@given(st.integers(1, 40), st.integers(1, 80), st.sampled_from([2, 3, 4]), st.integers(0, 99))
def test_inputs_without_correlation_leave_rounding(
    rows: int, columns: int, bits: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns)).astype(np.float32)
    plain = np.diag(random.uniform(0.1, 10, columns)).astype(np.float32)
    statistics = Statistics(9, plain, plain, None)
    with Pool(1) as pool:
        (even,) = gptq([weight], statistics, bits, SETTINGS, pool)
        (learned,) = gptq_codebook([weight], statistics, bits, SETTINGS, pool)
    for tensor in (even, learned):
        books = tensor.codebooks[tensor.group_of_row] * tensor.row_scale[:, None]
        distance = np.abs(books[:, None, :] - weight[:, :, None])
        found = np.abs(tensor.dequantize() - weight)
        np.testing.assert_allclose(found, distance.min(axis=2), atol=1e-5)


@pytest.mark.parametrize("function", [gptq, gptq_codebook, gptq_blocks])
def test_matrices_beside_change_nothing(function: Any, pool: Pool) -> None:
    weight, statistics = problem(50, 96)
    other = problem(33, 96, seed=1)[0]
    together = function([other, weight, other[:1]], statistics, 3, SETTINGS, pool)
    alone = function([weight], statistics, 3, SETTINGS, pool)
    assert [len(t) if isinstance(t, np.ndarray) else len(t.codes) for t in together] == [33, 50, 1]
    first, second = (
        t if isinstance(t, np.ndarray) else t.dequantize() for t in (together[1], *alone)
    )
    # products of other widths may sum in another order
    assert close(first, second.astype(np.float64))


@pytest.mark.parametrize("function", [gptq, gptq_codebook, gptq_blocks])
def test_only_the_quantized_model_s_inputs_count(function: Any, pool: Pool) -> None:
    weight, statistics = problem(20, 64)
    drifted = Statistics(
        statistics.tokens,
        plain=np.eye(64, dtype=np.float32),
        inputs=statistics.inputs,
        drift=np.ones((64, 64), np.float32),
    )
    (one,) = function([weight], statistics, 3, SETTINGS, pool)
    (two,) = function([weight], drifted, 3, SETTINGS, pool)
    if not isinstance(one, np.ndarray):
        one, two = one.dequantize(), two.dequantize()
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("bits", "levels"), [(2, range(-2, 2)), (4, range(-8, 8))])
def test_blocks_of_zeros_stay_zero_and_the_rest_is_as_good(
    bits: int, levels: Sequence[float], pool: Pool
) -> None:
    weight, statistics = problem(20, 96)
    weight[:, 32:64] = 0
    weight[3] = 0
    (values,) = gptq_blocks([weight], statistics, bits, SETTINGS, pool)
    assert not values[:, 32:64].any()
    assert not values[3].any()
    scale = np.zeros(weight.shape)
    for first in (0, 64):
        part = slice(first, first + 32)
        largest = np.abs(weight[:, part]).max(axis=1, keepdims=True)
        scale[:, part] = half(largest / np.float32(-levels[0]))
    assert close(values, textbook(weight, np.asarray(levels) * scale[:, :, None], statistics))


@pytest.mark.parametrize("function", [gptq, gptq_codebook, gptq_blocks])
def test_refuses(function: Any, pool: Pool) -> None:
    weight, statistics = problem(4, 8)
    weight[1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        function([weight], statistics, 4, SETTINGS, pool)
    broken = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(ValueError, match="second moments"):
        function([np.eye(8)], Statistics(1, broken, broken, None), 4, SETTINGS, pool)
