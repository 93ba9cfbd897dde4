"""NF4, against its own definition and its use."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgedec.kernels.packing import pack
from edgedec.quantize.baselines.normal_float import LEVELS, normal_float_blocks, normal_float_rows

WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=30),
    elements=st.floats(-(2.0**10), 2.0**10, width=16),
)


def test_levels_are_quantiles_of_a_normal_distribution() -> None:
    quantile = NormalDist().inv_cdf
    offset = (1 - 1 / 32 + 1 - 1 / 30) / 2  # section 3 and the authors' code
    positive = [quantile(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    negative = [-quantile(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    levels = np.sort([*positive, 0, *negative])
    np.testing.assert_allclose(LEVELS, levels / levels.max(), atol=2e-7)


@given(WEIGHTS)
def test_rows(weight: NDArray[np.float32]) -> None:
    tensor = normal_float_rows(weight)
    values = tensor.dequantize()
    np.testing.assert_array_equal(pack(tensor).dequantize(), values)
    largest = np.abs(weight).max(axis=1, keepdims=True)
    # half of the widest gap, which is the first
    assert (np.abs(values - weight) <= 0.16 * largest).all()
    assert not values[weight == 0].any()
    kept = np.abs(weight) == largest
    np.testing.assert_allclose(values[kept], weight[kept], rtol=1e-6)


@given(WEIGHTS, st.sampled_from([1, 5, 64]))
def test_blocks(weight: NDArray[np.float32], block: int) -> None:
    values = normal_float_blocks(weight, block)
    assert values.shape == weight.shape
    for first in range(0, weight.shape[1], block):
        part = weight[:, first : first + block]
        scale = np.abs(part).max(axis=1, keepdims=True).astype(np.float16).astype(np.float32)
        nearest = np.abs(LEVELS * scale[..., None] - part[..., None]).min(axis=2)
        found = np.abs(values[:, first : first + block] - part)
        np.testing.assert_allclose(found, nearest, atol=1e-5 * float(scale.max()))


def test_blocks_help_where_sizes_differ() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((64, 256)).astype(np.float32)
    weight *= np.exp(random.standard_normal(256)).astype(np.float32)
    rows, blocks = normal_float_rows(weight).dequantize(), normal_float_blocks(weight)
    assert np.linalg.norm(blocks - weight) < 0.95 * np.linalg.norm(rows - weight)


def test_refuses() -> None:
    for function in (normal_float_rows, normal_float_blocks):
        with pytest.raises(ValueError, match="NaN"):
            function(np.array([[1.0, np.nan]], np.float32))
