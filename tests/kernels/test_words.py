"""Words of codes against their definition, bit by bit, and back; the product against the CPU's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.kernels.models import random_matrix

from edgedec.kernels import codebook_matmul
from edgedec.kernels.packing import INT8_LEVELS, pack
from edgedec.kernels.words import Words, pack_words, reference, unpack_words, words_of

BITS = st.sampled_from([2, 3, 4, 8])


def code_of(words: NDArray[np.int32], row: int, column: int, bits: int) -> int:
    """A code as the layout is written down."""
    stored = [int(w) & 0xFFFFFFFF for w in words[row]]
    if bits == 3:
        planes = stored[3 * (column // 32) :]
        return sum((planes[p] >> column % 32 & 1) << p for p in range(3))
    return stored[column * bits // 32] >> column * bits % 32 & ((1 << bits) - 1)


@given(st.integers(1, 5), st.integers(1, 100), BITS, st.integers(0, 1 << 16))
def test_each_code_is_where_the_layout_says(rows: int, columns: int, bits: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns), np.uint8)
    words = pack_words(codes, bits)
    assert words.dtype == np.int32
    assert words.shape == (rows, -(-columns // 32) * bits)
    read = [[code_of(words, r, c, bits) for c in range(columns)] for r in range(rows)]
    assert np.array_equal(codes, read)
    assert np.array_equal(unpack_words(words, columns, bits), codes)
    assert not unpack_words(words, -(-columns // 32) * 32, bits)[:, columns:].any()


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    BITS,
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 1 << 16),
)
def test_products_are_those_of_the_cpu(
    rows: int, columns: int, bits: int, groups: int, order: bool, seed: int
) -> None:
    matrix = random_matrix(rows, columns, bits, groups=groups, order=order, seed=seed)
    packed = pack(matrix)
    words = words_of(packed)
    tables = packed.levels[packed.group_of_block[: -(-rows // 16)]]
    if words is None:
        assert order
        assert (tables != tables[0]).any()
        return
    x = np.random.default_rng(seed).standard_normal((2, 3, columns)).astype(np.float32)
    y = reference(x, words.words, words.levels, words.groups, words.scales)
    expected, *_ = codebook_matmul.reference(x, packed, compute="fp32")
    weights = np.abs(packed.dequantize())
    assert y.dtype == np.float32
    assert (np.abs(y - expected) <= (columns + 3) * 2.0**-23 * (np.abs(x) @ weights.T)).all()


def test_sorted_rows_come_back_where_their_blocks_agree() -> None:
    matrix = random_matrix(64, 40, 4, groups=2)
    blocks = np.array([2, 0, 3, 1])
    order = (16 * blocks[:, None] + np.arange(15, -1, -1)).ravel().astype(np.int32)
    packed = pack(dataclasses.replace(matrix, row_order=order))
    words = words_of(packed)
    assert words is not None
    assert np.array_equal(
        reference(np.eye(40), words.words, words.levels, words.groups, words.scales).T,
        packed.dequantize(),
    )


def test_what_kernels_cannot_know_is_refused() -> None:
    words = words_of(pack(random_matrix(20, 40, 4)))
    assert words is not None
    assert words.bits == 4
    for changed in (
        {"levels": np.full((3, 16), 64, np.int8)},
        {"levels": np.zeros((1, 16), np.int8), "groups": np.ones(2, np.int32)},
        {"groups": words.groups[:1]},
        {"scales": words.scales[:1]},
        {"words": words.words[:, :7]},
        {"levels": INT8_LEVELS[None, ::-1], "groups": np.zeros(2, np.int32)},
    ):
        with pytest.raises(ValueError, match=r"table|levels|scales|words"):
            dataclasses.replace(words, **changed)
    assert Words(words.words, INT8_LEVELS[None], np.zeros(2, np.int32), words.scales).bits == 8
    with pytest.raises(ValueError, match="2 bits cannot hold"):
        pack_words(np.full((1, 1), 4, np.uint8), 2)
    with pytest.raises(ValueError, match="do not exist"):
        pack_words(np.zeros((1, 1), np.uint8), 5)
    with pytest.raises(ValueError, match="uint8"):
        pack_words(np.zeros((1, 1), np.int32), 4)
