"""A weight matrix as codes into small tables of levels, before any device has packed it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BITS = (2, 3, 4, 8)
BLOCK_ROWS = 16
"""Rows that share a codebook whatever the grouping, so that one table serves a whole register."""
LARGEST_LEVEL = 63
"""Kernels hold levels of 2, 3 and 4-bit codes in 7 bits, so that two products fit into 16."""
PIECE = 1 << 20
"""Weights handled at a time where a step needs wider temporaries than its result."""


@dataclass(frozen=True, eq=False)
class CodebookTensor:
    """A matrix ``[N, K]`` with rows ``codebooks[group_of_row[r], codes[r]] * row_scale[r]``.

    Attributes:
        codes: uint8 ``[N, K]``, below ``2**bits``.
        codebooks: float32 ``[G, 2**bits]``, finite, in any order.
        row_scale: float32 ``[N]``, finite.
        group_of_row: uint16 ``[N]``, below G, the same in each block of 16 rows.
        bits: one of `BITS`.
        row_order: int32 ``[N]``, a permutation: stored row r is row ``row_order[r]`` of the matrix;
            None where they are the same. All other fields are in stored order.

    Raises:
        ValueError: where a field is not as described.
    """

    codes: NDArray[np.uint8]
    codebooks: NDArray[np.float32]
    row_scale: NDArray[np.float32]
    group_of_row: NDArray[np.uint16]
    bits: int
    row_order: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"codes of {self.bits} bits do not exist, only {BITS}")
        _check_array("codes", self.codes, np.uint8, 2)
        _check_array("codebooks", self.codebooks, np.float32, 2)
        rows, columns = self.codes.shape
        if not rows or not columns:
            raise ValueError(f"a matrix of shape {[rows, columns]} has no weights")
        if self.codebooks.shape[0] == 0 or self.codebooks.shape[1] != 1 << self.bits:
            raise ValueError(
                f"codebooks of shape {list(self.codebooks.shape)} do not have "
                f"{1 << self.bits} levels"
            )
        _check_array("row_scale", self.row_scale, np.float32, 1, rows)
        _check_array("group_of_row", self.group_of_row, np.uint16, 1, rows)
        if not (np.isfinite(self.codebooks).all() and np.isfinite(self.row_scale).all()):
            raise ValueError("levels and row scales must be finite")
        if int(self.codes.max()) >> self.bits:
            raise ValueError(f"codes reach {self.codes.max()}, which {self.bits} bits cannot hold")
        if int(self.group_of_row.max()) >= len(self.codebooks):
            raise ValueError(f"group {self.group_of_row.max()} has no codebook")
        changes = np.flatnonzero(np.diff(self.group_of_row)) + 1
        if (changes % BLOCK_ROWS).any():
            raise ValueError(f"groups must change at multiples of {BLOCK_ROWS} rows only")
        if self.row_order is not None:
            _check_array("row_order", self.row_order, np.int32, 1, rows)
            check_permutation(self.row_order)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows N and columns K."""
        rows, columns = self.codes.shape
        return rows, columns

    def dequantize(self) -> NDArray[np.float32]:
        """The matrix as float32 ``[N, K]``, in its own order of rows."""
        matrix = np.empty(self.shape, np.float32)
        groups = self.group_of_row.astype(np.intp)
        for rows in row_pieces(*self.shape):
            index = self.codes[rows] + (groups[rows] << self.bits)[:, None]
            values = self.codebooks.ravel()[index] * self.row_scale[rows][:, None]
            matrix[rows if self.row_order is None else self.row_order[rows]] = values
        return matrix


def row_pieces(rows: int, columns: int) -> Iterator[slice]:
    """Cut ``rows`` into pieces of whole 64-row panels with about `PIECE` weights each."""
    step = max(PIECE // (64 * max(columns, 1)), 1) * 64
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def seven_bits(codebooks: NDArray[np.floating]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Levels ``[G, L]`` as integers times a unit per codebook ``[G]``: ``max|codebook| / 63``.

    Codebooks of integers that fit are kept as they are: even levels stay even.
    """
    books = codebooks.astype(np.float64)
    largest = np.abs(books).max(axis=1)
    fits = (largest <= LARGEST_LEVEL) & (books == np.rint(books)).all(axis=1)
    factor = np.where(fits, 1, LARGEST_LEVEL / np.where(largest > 0, largest, 1))
    unit = np.where(fits, 1, largest / LARGEST_LEVEL)
    return np.rint(books * factor[:, None]).astype(np.int8), unit


def check_permutation(order: NDArray[np.int32]) -> None:
    """Raise ValueError where ``order`` does not name each of its positions once."""
    inside = (order >= 0) & (order < len(order))
    if not inside.all() or (np.bincount(order, minlength=len(order)) != 1).any():
        raise ValueError("row_order is no permutation of the rows")


def _check_array(
    name: str, array: NDArray[np.generic], dtype: type, rank: int, length: int | None = None
) -> None:
    if array.dtype != dtype or array.ndim != rank:
        raise ValueError(
            f"{name} must be {np.dtype(dtype)} of rank {rank}, "
            f"not {array.dtype} of shape {list(array.shape)}"
        )
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} entries for {length} rows")
