"""The references against loops over single numbers, computed exactly and then rounded."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.kernels.models import random_matrix

from edgedec.kernels import codebook_gather, codebook_matmul, decode_attention, memory_attention
from edgedec.kernels.codebook_matmul import COMPUTES, Compute, quantize_inputs, to_bfloat16
from edgedec.kernels.packing import Packed, pack

Array = NDArray[np.float32]
F = np.float32
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rounded(exact: Fraction) -> np.float32:
    """The float32 nearest to an exact number, half to even."""
    near = F(float(exact))
    choices = [near, np.nextafter(near, F(-np.inf)), np.nextafter(near, F(np.inf))]
    finite = [c for c in choices if np.isfinite(c)]
    return min(finite, key=lambda c: (abs(Fraction(float(c)) - exact), int(c.view(np.uint32)) & 1))


def quantized(x: Array) -> tuple[list[int], np.float32]:
    """One row or block of inputs by the rule of ``int8``, number by number."""
    largest = max(abs(v) for v in x)
    if largest < F(2.0**-100):
        return [0] * len(x), F(0)
    inverse = F(127) / largest
    return [round(float(F(v * inverse))) for v in x], F(largest / F(127))


def expected(x: Array, packed: Packed, bias: Array | None, compute: Compute) -> Array:
    """The operator as its schema says, for one row."""
    levels = packed.integers()
    y = np.empty(packed.rows, np.float32)
    for n in range(packed.rows):
        acc = F(0)
        if compute in ("int8", "int8-block"):
            width = 128 if compute == "int8-block" else len(x)
            for start in range(0, len(x), width):
                q, s = quantized(x[start : start + width])
                total = sum(a * int(b) for a, b in zip(q, levels[n, start:], strict=False))
                part = F(F(total) * s)
                acc = F(acc + part) if compute == "int8-block" else part
        else:
            for k, value in enumerate(to_bfloat16(x) if compute == "bf16" else x):
                exact = Fraction(float(value)) * int(levels[n, k]) + Fraction(float(acc))
                acc = rounded(exact)
        row = n if packed.row_order is None else int(packed.row_order[n])
        y[row] = F(acc * packed.row_scale[n])
        if bias is not None:
            y[row] += bias[row]
    return y


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize(("bits", "columns"), [(2, 300), (3, 31), (4, 129), (8, 257)])
@pytest.mark.parametrize("order", [False, True])
def test_products_to_the_last_bit(compute: Compute, bits: int, columns: int, order: bool) -> None:
    rng = np.random.default_rng(bits)
    packed = pack(random_matrix(5, columns, bits, order=order))
    x = (rng.standard_normal((3, columns)) * [[1], [1e-4], [1e6]]).astype(np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    for added in (None, bias):
        y, *_ = codebook_matmul.reference(x, packed, added, compute=compute)
        for row in range(3):
            np.testing.assert_array_equal(y[row], expected(x[row], packed, added, compute))


@given(st.lists(FLOATS, min_size=1, max_size=8), st.integers(0, 99))
def test_chains_to_the_last_bit(values: list[float], seed: int) -> None:
    x = np.array(values, np.float32) / F(1e4)  # products and sums stay finite
    packed = pack(random_matrix(2, len(x), 4, seed=seed))
    y, *_ = codebook_matmul.reference(x[None], packed, compute="fp32")
    np.testing.assert_array_equal(y[0], expected(x, packed, None, "fp32"))


def test_a_sum_that_would_be_rounded_twice() -> None:
    """1 + 2**-24 is half way; what float64 drops decides, and rounding there first loses it."""
    matrix = random_matrix(1, 3, 4, groups=1)
    levels = np.zeros((1, 16), np.int8)
    levels[0, 1] = 1
    codes = np.ones((1, 3), np.uint8)
    packed = pack(dataclasses.replace(matrix, codes=codes))
    packed = dataclasses.replace(packed, levels=levels, row_scale=np.ones(1, np.float32))
    for tiny, result in ((2.0**-80, 1.0), (-(2.0**-80), 1.0)):
        x = np.array([[tiny, 1.0, 0.0]], np.float32)
        y, *_ = codebook_matmul.reference(x, packed, compute="fp32")
        assert y[0, 0] == result
    assert codebook_matmul._add_once_rounded(
        np.array([[2.0**-24 + 2.0**-60]]), np.ones((1, 1), np.float32)
    ) == F(1 + 2.0**-23)
    assert codebook_matmul._add_once_rounded(
        np.array([[2.0**-24 - 2.0**-60]]), np.ones((1, 1), np.float32)
    ) == F(1)


@given(st.lists(FLOATS, min_size=1, max_size=40))
def test_quantized_inputs(values: list[float]) -> None:
    x = np.array(values, np.float32)
    q, scale = quantize_inputs(x[None])
    with np.errstate(under="ignore"):
        expected_q, expected_scale = quantized(x)
    assert q[0].tolist() == expected_q
    assert scale[0, 0] == expected_scale
    assert np.abs(q.astype(int)).max() <= 127


def test_halves_go_to_the_even_neighbour() -> None:
    q, scale = quantize_inputs(np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32))
    assert q.tolist() == [[127, 0, 2, 2, 0, -2]]
    assert scale.tolist() == [[1.0]]


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_rows_that_are_not_finite_stay_alone(compute: Compute, bad: float) -> None:
    packed = pack(random_matrix(20, 200, 4))
    x = np.random.default_rng(0).standard_normal((3, 200)).astype(np.float32)
    clean, *_ = codebook_matmul.reference(x, packed, compute=compute)
    x[1, 150] = bad
    y, *_ = codebook_matmul.reference(x, packed, compute=compute)
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])
    if compute.startswith("int8"):
        assert np.isnan(y[1]).all()
    else:
        assert not np.isfinite(y[1]).any()


def test_rows_of_zeros_and_of_next_to_nothing() -> None:
    packed = pack(random_matrix(20, 200, 4))
    x = np.zeros((2, 200), np.float32)
    x[1, 7] = 2.0**-101
    for compute in ("int8", "int8-block"):
        y, *_ = codebook_matmul.reference(x, packed, compute=compute)
        np.testing.assert_array_equal(y, np.zeros((2, 20)))


def test_bfloat16_as_in_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    ties = (raw & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    for x in (raw.view(np.float32), ties.view(np.float32)):
        with np.errstate(invalid="ignore"):
            want = x.astype(ml_dtypes.bfloat16).astype(np.float32)
        got = to_bfloat16(x)
        assert ((got == want) | (np.isnan(got) & np.isnan(want))).all()


@pytest.mark.parametrize("splits", [(20, 0, 0), (4, 16, 0), (4, 6, 10), (0, 20, 0)])
def test_splits(splits: tuple[int, int, int]) -> None:
    packed = pack(random_matrix(20, 33, 3))
    x = np.random.default_rng(0).standard_normal((2, 3, 33)).astype(np.float32)
    whole, *_ = codebook_matmul.reference(x, packed)
    parts = codebook_matmul.reference(x, packed, splits=splits)
    assert tuple(part.shape for part in parts) == tuple((2, 3, n) for n in splits)
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole)


@pytest.mark.parametrize("splits", [(20, 1, 0), (21, -1, 0), (19, 0, 0)])
def test_splits_that_do_not_fit(splits: tuple[int, int, int]) -> None:
    packed = pack(random_matrix(20, 33, 3))
    with pytest.raises(ValueError, match="do not fit"):
        codebook_matmul.reference(np.zeros((1, 33), np.float32), packed, splits=splits)


def test_an_unknown_way_to_compute() -> None:
    packed = pack(random_matrix(20, 33, 3))
    with pytest.raises(ValueError, match="int4"):
        codebook_matmul.reference(np.zeros((1, 33), np.float32), packed, compute="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [False, True])
def test_gather(order: bool) -> None:
    packed = pack(random_matrix(70, 19, 3, order=order))
    indices = np.array([[0, 69, 3], [3, 16, 64]])
    found = codebook_gather.reference(indices, packed)
    np.testing.assert_array_equal(found, packed.dequantize()[indices])
    assert found.dtype == np.float32
    for wrong in (-1, 70):
        with pytest.raises(IndexError):
            codebook_gather.reference(np.array([wrong]), packed)


def naive_attention(
    query: Array, keys: Array, values: Array, added: list[list[float]], scale: float
) -> Array:
    """One query head after the other, one key after the other; ``added[head][key]``."""
    heads, kv_heads = len(added), len(keys[0])
    rows = []
    for head in range(heads):
        kv = head * kv_heads // heads
        scores = [
            scale * sum(float(a) * float(b) for a, b in zip(query[head], key[kv], strict=True))
            + added[head][j]
            for j, key in enumerate(keys)
        ]
        weights = [math.exp(score - max(scores)) for score in scores]
        rows.append(
            sum(w * value[kv].astype(float) for w, value in zip(weights, values, strict=True))
            / sum(weights)
        )
    return np.array(rows, np.float32)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("origin", [0, 1, 3])
def test_decode_attention(heads: int, kv_heads: int, origin: int) -> None:
    rng = np.random.default_rng(heads)
    B, T, M, D, L = 3, 2, 9, 5, 6

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    query, key, value = draw(B, T, heads * D), draw(B, T, kv_heads * D), draw(B, T, kv_heads * D)
    past_key, past_value = draw(B, M, kv_heads * D), draw(B, M, kv_heads * D)
    lengths = np.array([0, 4, M - T])
    for b in range(B):  # what is behind the new positions is never read
        past_key[b, lengths[b] + T :] = past_value[b, lengths[b] + T :] = np.nan
    for bias in (draw(heads, L), draw(1, L)):
        y, keys, values = decode_attention.reference(
            query,
            key,
            value,
            past_key,
            past_value,
            lengths,
            bias,
            q_num_heads=heads,
            kv_num_heads=kv_heads,
            scale=0.7,
            origin=origin,
        )
        for b in range(B):
            for t in range(T):
                p = int(lengths[b]) + t
                np.testing.assert_array_equal(keys[b, p], key[b, t])
                np.testing.assert_array_equal(values[b, p], value[b, t])
                added = [
                    [
                        float(bias[h % len(bias), min(max(p - j + origin, 0), L - 1)])
                        for j in range(p + 1)
                    ]
                    for h in range(heads)
                ]
                expected = naive_attention(
                    query[b, t].reshape(heads, D),
                    keys[b, : p + 1].reshape(p + 1, kv_heads, D),
                    values[b, : p + 1].reshape(p + 1, kv_heads, D),
                    added,
                    0.7,
                )
                # both in float64 and then rounded
                np.testing.assert_allclose(y[b, t], expected.ravel(), rtol=1e-6, atol=1e-6)
            untouched = np.delete(np.arange(M), lengths[b] + np.arange(T))
            np.testing.assert_array_equal(keys[b, untouched], past_key[b, untouched])
    assert not np.shares_memory(keys, past_key)


@pytest.mark.parametrize("lengths", [[-1, 0], [0, 8]])
def test_decode_attention_refuses_what_does_not_fit(lengths: list[int]) -> None:
    new, past = np.zeros((2, 2, 4), np.float32), np.zeros((2, 9, 4), np.float32)
    with pytest.raises(ValueError, match="exceed 9"):
        decode_attention.reference(
            new,
            new,
            new,
            past,
            past,
            np.array(lengths),
            np.zeros((1, 1), np.float32),
            q_num_heads=1,
            kv_num_heads=1,
            scale=1.0,
            origin=0,
        )


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
def test_memory_attention(heads: int, kv_heads: int) -> None:
    rng = np.random.default_rng(heads)
    B, T, S, D, L, origin = 2, 3, 6, 5, 7, 3

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    query, key, value = draw(B, T, heads * D), draw(B, S, kv_heads * D), draw(B, S, kv_heads * D)
    mask = np.zeros((B, 1, 1, S), np.float32)
    mask[1, ..., 4:] = -1e9
    for bias in (draw(heads, L), draw(1, L), np.zeros((1, 1), np.float32)):
        y = memory_attention.reference(
            query,
            key,
            value,
            mask,
            bias,
            q_num_heads=heads,
            kv_num_heads=kv_heads,
            scale=0.7,
            origin=origin,
        )
        for b in range(B):
            for t in range(T):
                added = [
                    [
                        float(bias[h % len(bias), min(max(t - j + origin, 0), bias.shape[1] - 1)])
                        + float(mask[b, 0, 0, j])
                        for j in range(S)
                    ]
                    for h in range(heads)
                ]
                expected = naive_attention(
                    query[b, t].reshape(heads, D),
                    key[b].reshape(S, kv_heads, D),
                    value[b].reshape(S, kv_heads, D),
                    added,
                    0.7,
                )
                np.testing.assert_allclose(y[b, t], expected.ravel(), rtol=1e-6, atol=1e-6)
