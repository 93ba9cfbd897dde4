"""The packed layout against its definition, bit by bit, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.kernels.models import random_matrix

from edgedec.kernels.packing import (
    INT8_LEVELS,
    MOST_COLUMNS,
    Packed,
    concatenate,
    pack,
    packed_shape,
    unpack,
)
from edgedec.quantize import codebook
from edgedec.quantize.codebook import CodebookTensor

BITS = st.sampled_from([2, 3, 4, 8])
MATRICES = st.builds(
    random_matrix,
    rows=st.integers(1, 130),
    columns=st.integers(1, 40),
    bits=BITS,
    groups=st.integers(1, 5),
    order=st.booleans(),
    seed=st.integers(0, 1 << 16),
)


def expected_bytes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The layout as it is written down, one byte after the other."""
    unit = {2: 16, 3: 32, 4: 8, 8: 4}[bits]
    panels, units = -(-codes.shape[0] // 64), -(-codes.shape[1] // unit)
    c = np.zeros((64 * panels, unit * units), int)
    c[: codes.shape[0], : codes.shape[1]] = codes
    packed = []
    for panel in range(panels):
        for u in range(units):
            for block in range(4):
                for chunk in range(3 if bits == 3 else 1):
                    for row in range(64 * panel + 16 * block, 64 * panel + 16 * block + 16):
                        packed += [one_byte(c[row, unit * u + b :], bits, chunk) for b in range(4)]
    return np.array(packed, np.uint8).reshape(panels, units, -1)


def one_byte(c: NDArray[np.int64], bits: int, chunk: int) -> int:
    """A byte of the codes ``c`` from the column of its unit on that it starts with."""
    match bits, chunk:
        case 4, _:
            return int(c[0] | c[4] << 4)
        case 2, _:
            return int(sum(c[4 * q] << 2 * q for q in range(4)))
        case 8, _:
            return int(c[0])
        case 3, 2:
            return int(sum((c[4 * q] >> 2) << q for q in range(8)))
        case _:
            return int(sum((c[16 * chunk + 4 * q] & 3) << 2 * q for q in range(4)))


@given(MATRICES)
def test_layout(matrix: CodebookTensor) -> None:
    packed = pack(matrix)
    rows, columns = matrix.shape
    assert packed.weight.shape == packed_shape(rows, columns, matrix.bits)
    np.testing.assert_array_equal(packed.weight, expected_bytes(matrix.codes, matrix.bits))
    blocks = matrix.group_of_row[::16] if matrix.bits != 8 else np.zeros(-(-rows // 16))
    expected = np.zeros(4 * len(packed.weight))
    expected[: len(blocks)] = blocks
    np.testing.assert_array_equal(packed.group_of_block, expected)


@given(MATRICES)
def test_round_trip(matrix: CodebookTensor) -> None:
    packed = pack(matrix)
    np.testing.assert_array_equal(unpack(packed), matrix.codes)
    assert (packed.rows, packed.columns) == matrix.shape
    assert packed.ragged == (matrix.shape[1] % {2: 16, 3: 32, 4: 8, 8: 4}[matrix.bits] != 0)
    # A level is off by half a step of 1/63 of the largest one, plus float32's rounding.
    largest = np.abs(matrix.codebooks).max() * matrix.row_scale.max()
    tolerance = 0 if matrix.bits == 8 else 0.5001 / 63 * largest
    np.testing.assert_allclose(packed.dequantize(), matrix.dequantize(), rtol=0, atol=tolerance)


@given(MATRICES)
def test_pieces_do_not_matter(matrix: CodebookTensor) -> None:
    whole, values = pack(matrix), matrix.dequantize()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codebook, "PIECE", 1)  # one panel at a time
        pieces = pack(matrix)
        np.testing.assert_array_equal(pieces.weight, whole.weight)
        np.testing.assert_array_equal(unpack(pieces), matrix.codes)
        np.testing.assert_array_equal(pieces.dequantize(), whole.dequantize())
        np.testing.assert_array_equal(matrix.dequantize(), values)


@given(BITS.filter(lambda bits: bits != 8), st.integers(0, 1 << 16))
def test_integer_levels_are_packed_without_loss(bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    books = rng.integers(-63, 64, (2, 1 << bits)).astype(np.float32)
    books[:, 0] = rng.choice([-63, 63], 2)
    matrix = dataclasses.replace(random_matrix(40, 9, bits, groups=2, seed=seed), codebooks=books)
    packed = pack(matrix)
    np.testing.assert_array_equal(packed.levels, books)
    np.testing.assert_array_equal(packed.dequantize(), matrix.dequantize())


def test_a_codebook_of_zeros() -> None:
    matrix = dataclasses.replace(
        random_matrix(20, 8, 4, groups=1), codebooks=np.zeros((1, 16), np.float32)
    )
    np.testing.assert_array_equal(pack(matrix).dequantize(), np.zeros((20, 8)))


def test_row_order_names_the_row_of_the_matrix() -> None:
    matrix = random_matrix(20, 8, 4)
    order = np.roll(np.arange(20, dtype=np.int32), 3)
    moved = dataclasses.replace(matrix, row_order=order)
    for plain, reordered in (
        (matrix.dequantize(), moved.dequantize()),
        (pack(matrix).dequantize(), pack(moved).dequantize()),
    ):
        for stored, row in enumerate(order):
            np.testing.assert_array_equal(reordered[row], plain[stored])


@given(
    BITS,
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=4),
)
def test_concatenate(bits: int, columns: int, parts: list[tuple[int, bool]]) -> None:
    matrices = [
        random_matrix(16 * blocks, columns, bits, groups=i + 1, order=order, seed=i)
        for i, (blocks, order) in enumerate(parts)
    ]
    joined = concatenate(matrices)
    expected = np.concatenate([matrix.dequantize() for matrix in matrices])
    np.testing.assert_array_equal(joined.dequantize(), expected)
    assert (joined.row_order is None) == (not any(order for _, order in parts))
    np.testing.assert_array_equal(
        pack(joined).dequantize(), np.concatenate([pack(m).dequantize() for m in matrices])
    )


def test_concatenate_keeps_equal_codebooks_once() -> None:
    matrix = random_matrix(32, 8, 4, groups=2)
    assert concatenate([matrix, matrix, random_matrix(16, 8, 4, groups=1, seed=1)]).codebooks.shape[
        0
    ] == (3)


@pytest.mark.parametrize(
    ("matrices", "sentence"),
    [
        ([], "nothing"),
        ([random_matrix(16, 8, 4), random_matrix(16, 8, 3)], "8 columns of 3 bits"),
        ([random_matrix(16, 8, 4), random_matrix(16, 9, 4)], "9 columns of 4 bits"),
        ([random_matrix(24, 8, 4), random_matrix(16, 8, 4)], "24 rows"),
    ],
)
def test_concatenate_refuses(matrices: list[CodebookTensor], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        concatenate(matrices)


def test_eight_bits_have_one_table() -> None:
    matrix = random_matrix(20, 8, 8)
    with pytest.raises(ValueError, match="-128 to 127"):
        pack(dataclasses.replace(matrix, codebooks=matrix.codebooks + np.float32(1)))
    codes = matrix.codes.copy()
    codes[3, 3] = 0
    with pytest.raises(ValueError, match="code 0"):
        pack(dataclasses.replace(matrix, codes=codes))


def test_rows_that_int32_could_not_sum() -> None:
    matrix = random_matrix(1, MOST_COLUMNS + 1, 2)
    with pytest.raises(ValueError, match=str(MOST_COLUMNS)):
        pack(matrix)
    assert 127 * 127 * MOST_COLUMNS < 1 << 31


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bits": 5}, "5 bits"),
        ({"columns": 0}, "rows of 0"),
        ({"columns": 17}, r"uint8 \[1, 3, 256\]"),
        ({"weight": np.zeros((1, 2, 255), np.uint8)}, "not uint8"),
        ({"weight": np.zeros((1, 2, 256), np.int8)}, "not int8"),
        ({"group_of_block": np.array([0, 1, 3, 0], np.int32)}, "one table"),
        ({"group_of_block": np.array([0, -1, 0, 0], np.int32)}, "one table"),
        ({"group_of_block": np.zeros(3, np.int32)}, "one table"),
        ({"levels": np.zeros((3, 16), np.int16)}, "int8"),
        ({"levels": np.zeros((3, 8), np.int8)}, "16"),
        ({"levels": np.full((3, 16), -64, np.int8)}, "63"),
        ({"levels": np.full((3, 16), -128, np.int8)}, "63"),
        ({"row_order": np.zeros(20, np.int32)}, "permutation"),
        ({"row_order": np.arange(19, dtype=np.int32)}, "20 rows"),
    ],
)
def test_a_packed_matrix_is_checked(change: dict[str, Any], sentence: str) -> None:
    packed = pack(random_matrix(20, 16, 4))
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(packed, **change)


def test_packed_levels_of_eight_bits_are_checked() -> None:
    packed = pack(random_matrix(20, 16, 8))
    with pytest.raises(ValueError, match="-128 to 127"):
        dataclasses.replace(packed, levels=INT8_LEVELS[None, ::-1])
    assert isinstance(packed, Packed)
