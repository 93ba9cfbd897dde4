"""Bits per weight against the bytes of what is packed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.kernels.packing import pack
from edgedec.quantize.baselines.kmeans import kmeans
from edgedec.quantize.baselines.nearest import round_to_nearest
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.size import block_bits, stored_bits


def packed_bytes(tensor: CodebookTensor) -> int:
    packed = pack(tensor)
    parts = (packed.weight, packed.levels, packed.row_scale, packed.group_of_block)
    order = packed.row_order
    return sum(part.nbytes for part in parts) + (0 if order is None else order.nbytes)


@given(st.sampled_from([2, 3, 4]), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_without_padding_it_is_what_packing_takes(
    bits: int, panels: int, units: int, permuted: bool
) -> None:
    rows, columns = 64 * panels, 32 * units
    weight = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    tensor = kmeans(weight, bits)
    if permuted:
        order = np.arange(rows, dtype=np.int32)[::-1].copy()
        parts = (tensor.codes, tensor.codebooks, tensor.row_scale, tensor.group_of_row)
        tensor = CodebookTensor(*parts, bits, order)
    assert stored_bits(tensor) * rows * columns == pytest.approx(8 * packed_bytes(tensor))


def test_padding_does_not_count() -> None:
    tensor = kmeans(np.eye(17, 5), 3)
    bits = 17 * 5 * 3 + 8 * 8 + 17 * 32 + 2 * 32
    assert stored_bits(tensor) == pytest.approx(bits / (17 * 5))
    assert 8 * packed_bytes(tensor) > bits


def test_eight_bits() -> None:
    tensor = round_to_nearest(np.ones((64, 4)))
    assert stored_bits(tensor) == pytest.approx(8 + (256 * 8 + 64 * 32 + 4 * 32) / 256)
    assert stored_bits(tensor) * 64 * 4 == pytest.approx(8 * packed_bytes(tensor))


def test_blocks_that_are_not_full_have_a_scale_too() -> None:
    assert block_bits(64, 4, 32) == 4.5
    assert block_bits(40, 2, 32) == 2 + 2 * 16 / 40
