"""What a CodebookTensor accepts, and what it stands for."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.quantize import codebook
from edgedec.quantize.codebook import CodebookTensor, row_pieces, seven_bits


def matrix(rows: int = 40, columns: int = 5, bits: int = 2, groups: int = 3) -> CodebookTensor:
    rng = np.random.default_rng(rows + columns + bits)
    return CodebookTensor(
        codes=rng.integers(0, 1 << bits, (rows, columns), dtype=np.uint8),
        codebooks=rng.standard_normal((groups, 1 << bits)).astype(np.float32),
        row_scale=rng.standard_normal(rows).astype(np.float32),
        group_of_row=(np.arange(rows) // 16 % groups).astype(np.uint16),
        bits=bits,
    )


@given(st.integers(1, 70), st.integers(1, 9), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_dequantize_weight_by_weight(rows: int, columns: int, bits: int, order: bool) -> None:
    tensor = matrix(rows, columns, bits)
    permutation = np.random.default_rng(rows).permutation(rows).astype(np.int32)
    if order:
        tensor = dataclasses.replace(tensor, row_order=permutation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codebook, "PIECE", 64)
        values = tensor.dequantize()
    assert values.dtype == np.float32
    assert values.shape == tensor.shape
    for r in range(rows):
        book = tensor.codebooks[tensor.group_of_row[r]]
        for k in range(columns):
            expected = book[tensor.codes[r, k]] * tensor.row_scale[r]
            assert values[permutation[r] if order else r, k] == expected


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bits": 5}, "5 bits"),
        ({"bits": 3}, "8 levels"),
        ({"codes": np.zeros((40, 5), np.int64)}, "codes must be uint8"),
        ({"codes": np.zeros(40, np.uint8)}, "rank 2"),
        ({"codes": np.zeros((40, 0), np.uint8)}, "no weights"),
        ({"codes": np.full((40, 5), 4, np.uint8)}, "codes reach 4"),
        ({"codebooks": np.zeros((3, 4))}, "float32"),
        ({"codebooks": np.zeros((0, 4), np.float32)}, "4 levels"),
        ({"codebooks": np.full((3, 4), np.nan, np.float32)}, "finite"),
        ({"codebooks": np.zeros((2, 4), np.float32)}, "group 2"),
        ({"row_scale": np.ones(39, np.float32)}, "39 entries"),
        ({"row_scale": np.full(40, np.inf, np.float32)}, "finite"),
        ({"group_of_row": np.zeros(40, np.int64)}, "uint16"),
        ({"group_of_row": (np.arange(40) // 8 % 2).astype(np.uint16)}, "multiples of 16"),
        ({"row_order": np.arange(40)}, "int32"),
        ({"row_order": np.zeros(40, np.int32)}, "permutation"),
        ({"row_order": np.arange(1, 41, dtype=np.int32)}, "permutation"),
        ({"row_order": np.arange(-1, 39, dtype=np.int32)}, "permutation"),
    ],
)
def test_a_tensor_is_checked(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(matrix(), **change)


@given(st.integers(1, 5000), st.integers(1, 1 << 22))
def test_pieces_are_whole_panels(rows: int, columns: int) -> None:
    pieces = list(row_pieces(rows, columns))
    assert pieces[0].start == 0
    assert all(a.stop == b.start for a, b in itertools.pairwise(pieces))
    assert pieces[-1].stop == rows
    assert all(piece.start % 64 == 0 for piece in pieces)


def test_levels_of_seven_bits() -> None:
    books = np.array([[-2.0, -0.1, 0.0, 1.0], [0, 0, 0, 0], [1e-3, 0, 0, 0.5e-3]], np.float32)
    levels, unit = seven_bits(books)
    assert levels.tolist() == [[-63, -3, 0, 32], [0, 0, 0, 0], [63, 0, 0, 32]]
    np.testing.assert_allclose(unit, [2 / 63, 1, 1e-3 / 63], rtol=1e-6)
    levels, unit = seven_bits(np.array([[-2.0, -1, 0, 1], [-63, 62, 0, 1], [-64, 0, 0, 1]]))
    assert levels.tolist() == [[-2, -1, 0, 1], [-63, 62, 0, 1], [-63, 0, 0, 1]]
    np.testing.assert_allclose(unit, [1, 1, 64 / 63])
