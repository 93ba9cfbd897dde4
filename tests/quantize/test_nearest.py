"""Rounding to evenly spaced levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgedec.kernels.packing import pack
from edgedec.quantize.baselines.nearest import (
    even_levels,
    round_to_all,
    round_to_blocks,
    round_to_nearest,
)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=30),
        elements=st.floats(-(2.0**99), 2.0**99, width=32),
    ),
    st.sampled_from([2, 3, 4, 8]),
)
def test_no_weight_is_further_off_than_half_a_step(weight: NDArray[Any], bits: int) -> None:
    tensor = round_to_nearest(weight, bits)
    assert tensor.codes.min() >= 1  # the range is symmetric
    step = tensor.row_scale.astype(np.float64)[:, None]
    # 1e-6 for float32, 1e-44 for numbers so small that they have no digits left
    difference = np.abs(tensor.dequantize() - weight.astype(np.float64))
    assert (difference <= 0.5 * step + 1e-6 * np.abs(weight) + 1e-44 * (1 << bits)).all()


def test_eight_bits_are_integers_times_a_scale() -> None:
    weight = np.array([[127, -127, 3, 0.4], [0, 0, 0, 0], [1, 2, 3, 4]], np.float32)
    tensor = round_to_nearest(weight)
    assert tensor.bits == 8
    np.testing.assert_array_equal(tensor.row_scale, weight.max(axis=1) / np.float32(127))
    assert tensor.codes.tolist() == [
        [255, 1, 131, 128],
        [128, 128, 128, 128],
        [160, 192, 223, 255],
    ]
    packed = pack(tensor)
    np.testing.assert_array_equal(packed.dequantize(), tensor.dequantize())
    np.testing.assert_array_equal(packed.levels, np.arange(-128, 128)[None])


def test_refuses() -> None:
    with pytest.raises(ValueError, match="5 bits"):
        round_to_nearest(np.ones((2, 2)), 5)
    with pytest.raises(ValueError, match="NaN"):
        round_to_nearest(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="no matrix"):
        round_to_nearest(np.ones(3))


FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-(2.0**40), 2.0**40, width=32),
)


@given(FLOATS, st.sampled_from([2, 3, 4]))
def test_all_levels_serve(weight: NDArray[np.float32], bits: int) -> None:
    tensor = round_to_all(weight, bits)
    np.testing.assert_array_equal(pack(tensor).dequantize(), tensor.dequantize())
    # Each weight has the nearest of the stored levels of its row, whatever the sign of the scale.
    scale = np.where(np.abs(weight).max(axis=1) > 1e-30, tensor.row_scale, np.float32(0))
    table = tensor.codebooks[0].astype(np.float64) * scale[:, None]
    nearest = np.abs(table[:, None, :] - weight[:, :, None]).min(axis=2)
    found = np.abs(tensor.dequantize() - weight.astype(np.float64))
    assert (found <= nearest + 1e-5 * np.abs(scale)[:, None]).all()
    # the largest weight is a level itself
    where = np.abs(weight).argmax(axis=1)
    rows = np.arange(len(weight))
    kept = np.where(scale == 0, np.float32(0), weight[rows, where])
    np.testing.assert_allclose(tensor.dequantize()[rows, where], kept, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_are_even(bits: int) -> None:
    levels = round_to_all(np.ones((1, 1), np.float32), bits).codebooks[0]
    np.testing.assert_array_equal(levels, even_levels(bits))


@given(FLOATS, st.sampled_from([2, 3, 4, 8]), st.sampled_from([1, 7, 32]))
def test_blocks_are_like_rows_with_a_half_scale(
    weight: NDArray[np.float32], bits: int, block: int
) -> None:
    weight = weight * np.float32(2.0**-26)  # into the range of float16
    levels = even_levels(bits)
    values = round_to_blocks(weight, bits, block)
    assert values.shape == weight.shape
    for first in range(0, weight.shape[1], block):
        part = weight[:, first : first + block]
        largest = part[np.arange(len(part)), np.abs(part).argmax(axis=1)]
        scale = (largest / levels[0]).astype(np.float16).astype(np.float32)
        table = levels * scale[:, None]
        nearest = np.abs(table[:, None, :] - part[:, :, None]).min(axis=2)
        found = np.abs(values[:, first : first + block] - part)
        np.testing.assert_allclose(found, nearest, atol=1e-5 * np.abs(largest).max())


def test_scales_beyond_float16_become_its_largest() -> None:
    values = round_to_blocks(np.array([[1e9, 0, -1e-9]], np.float32), 4)
    np.testing.assert_array_equal(values, [[8 * 65504, 0, 0]])


@pytest.mark.parametrize("function", [round_to_all, round_to_blocks])
def test_even_levels_refuse(function: Callable[[NDArray[Any], int], Any]) -> None:
    with pytest.raises(ValueError, match="NaN"):
        function(np.array([[1.0, np.nan]], np.float32), 4)
    with pytest.raises(ValueError, match="no matrix"):
        function(np.ones((0, 3), np.float32), 4)
