"""Rounding to evenly spaced levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgedec.kernels.packing import pack
from edgedec.quantize.nearest import round_to_nearest


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
