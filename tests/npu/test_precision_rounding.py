"""Integers and scales: properties of rounding, grids and ranges, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgedec.devices.npu.precision import PRECISIONS, Ranges, round_weight
from edgedec.devices.npu.precision.grids import S16, U8, U16, GridType, make_grid
from edgedec.devices.npu.precision.precisions import block_size
from edgedec.devices.npu.precision.rounding import fit_groups
from edgedec.errors import InputError
from edgedec.quantize.matrices import Role

NUMBERS = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
GROUPS = arrays(np.float32, st.tuples(st.integers(1, 4), st.just(16)), elements=NUMBERS)


def nearest(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Every value at the nearest integer, with the largest at the end of the range."""
    most = 2 ** (bits - 1) - 1
    scales = np.abs(values).max(1, keepdims=True) / most
    found = np.rint(values / np.where(scales > 0, scales, 1)) * scales
    return np.asarray(found, np.float32)


@given(GROUPS, st.sampled_from([4, 8]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_scales_lose_no_more_than_the_largest_value_would(
    values: NDArray[np.float32], bits: int, signed: bool
) -> None:
    codes, scales = fit_groups(values, bits, signed=signed)
    assert codes.min() >= -(2 ** (bits - 1))
    assert codes.max() < 2 ** (bits - 1)
    assert np.isfinite(scales).all()
    assert (scales != 0).all()
    assert signed or (scales > 0).all()
    found = np.square(values - codes * scales[:, None]).sum(1)
    assert (found <= np.square(values - nearest(values, bits)).sum(1) * 1.001 + 1e-6).all()


def test_zeros_and_the_smallest_numbers_survive() -> None:
    values = np.zeros((2, 16), np.float32)
    values[1, 0] = 1e-42
    codes, scales = fit_groups(values, 4, signed=True)
    assert not codes.any()
    assert np.isfinite(scales).all()


def test_a_long_tail_is_cut_off_where_that_pays() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((64, 512)).astype(np.float32)
    codes, scales = fit_groups(values, 4)
    found = np.square(values - codes * scales[:, None]).mean()
    assert found < 0.8 * np.square(values - nearest(values, 4)).mean()


@given(
    GROUPS, st.sampled_from([1e-9, 1e-6, 1e-4, 1.0, 600.0]), st.sampled_from([4, 8]), st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_scales_of_float16(
    values: NDArray[np.float32], size: float, bits: int, signed: bool
) -> None:
    """They are numbers of float16, as is what they make, and integers are fitted to them."""
    values = (values * np.float32(size)).astype(np.float32)
    codes, scales = fit_groups(values, bits, signed=signed, half=True)
    assert (scales.astype(np.float16).astype(np.float32) == scales).all()
    assert (scales != 0).all()
    found = codes * scales[:, None]
    assert np.abs(found).max() <= np.finfo(np.float16).max
    assert not found[~values.any(1)].any()
    error = np.square(values - found, dtype=np.float64).sum(1)
    assert (error <= np.square(values, dtype=np.float64).sum(1) * 1.001 + 1e-30).all()


@pytest.mark.parametrize("precision", ["nbits8", "nbits4"])
@pytest.mark.parametrize("role", ["linear", "embedding"])
@pytest.mark.parametrize(("size", "loss"), [(1e-6, 0.12), (1e-5, 0.1), (6e4, 0.1)])
def test_blocks_of_tiny_and_of_huge_weights(
    precision: str, role: Role, size: float, loss: float
) -> None:
    """A scale below float16's numbers would make zeros of them, one above infinities."""
    values = np.random.default_rng(3).uniform(-size, size, (8, 64)).astype(np.float32)
    values[2] = 0
    found = round_weight(values, role, precision, PRECISIONS[precision].bits)
    assert np.isfinite(found.astype(np.float16)).all()
    assert not found[2].any()
    error = np.linalg.norm(found - values) / np.linalg.norm(values)
    assert error < loss


def test_a_block_of_zeros_does_not_set_its_rows_scale() -> None:
    values = np.random.default_rng(3).uniform(-0.01, 0.01, (4, 64)).astype(np.float32)
    values[1, :32] = 0
    values[2] = 0
    found = round_weight(values, "linear", "lpbq", 4)
    assert np.linalg.norm(found - values) < 0.15 * np.linalg.norm(values)


@pytest.mark.parametrize(
    ("precision", "role", "limit"),
    [
        ("fp16", "linear", 3e-4),
        ("nbits8", "linear", 0.006),
        ("nbits8", "embedding", 0.01),
        ("w8a16", "linear", 0.01),
        ("nbits4", "linear", 0.1),
        ("nbits4", "embedding", 0.15),
        ("w4a16", "linear", 0.15),
        ("lpbq", "head", 0.11),
    ],
)
def test_precisions_lose_what_their_blocks_suggest(
    precision: str, role: Role, limit: float
) -> None:
    values = np.random.default_rng(1).standard_normal((48, 256)).astype(np.float32)
    found = round_weight(values, role, precision, PRECISIONS[precision].bits)
    error = float(np.sqrt(np.square(found - values).mean()))
    assert limit / 3 < error < limit


@pytest.mark.parametrize(("columns", "size"), [(512, 32), (48, 16), (40, 0), (16, 16)])
def test_blocks_fill_the_inputs(columns: int, size: int) -> None:
    assert block_size(columns) == size


@given(
    st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)).map(sorted),
    st.sampled_from([U8, U16, S16]),
)
def test_grids_hold_zero_and_reach_both_ends(ends: list[float], kind: GridType) -> None:
    low, high = ends
    grid = make_grid((low, high), kind, "x")
    assert grid.scale > 0
    assert kind.lowest <= grid.zero_point <= kind.highest
    values = np.array([low, 0.0, high])
    integers = np.clip(np.rint(values / grid.scale) + grid.zero_point, kind.lowest, kind.highest)
    found = (integers - grid.zero_point) * grid.scale
    assert found[1] == 0
    assert np.abs(found - values).max() <= grid.scale * 1.01


def test_ranges_grow_and_pass_over_integers() -> None:
    ranges = Ranges()
    ranges.update({"a": np.array([1.0, 2.0], np.float32), "ids": np.array([7])})
    ranges.update({"a": np.array([-3.0], np.float32), "b": np.zeros((0,), np.float32)})
    low, high = ranges.found()["a"]
    assert list(ranges.found()) == ["a"]
    assert -3.3 < low < -3.0
    assert 2.0 < high < 2.2


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named(odd: float) -> None:
    ranges = Ranges()
    with pytest.raises(InputError, match=r"'decoder\.3\.mlp' is infinite or no number"):
        ranges.update({"decoder.3.mlp": np.array([1.0, odd], np.float32)})
    with pytest.raises(InputError, match=r"'cross\.0\.key' is infinite or no number"):
        make_grid((min(0.0, odd), max(0.0, odd) if odd > 0 else odd), U8, "cross.0.key")
