"""Codes as GPU kernels read them: rows of 32-bit words, beside tables, their use and scales.

A row of K codes is ``U = ceil(K / 32) * bits`` words, the lowest bits first:

- 2, 4 and 8 bits: the code of column k is in word ``k * bits // 32`` at bit ``k * bits % 32``;
- 3 bits: each 32 columns are three words; word p holds bit p of the code of column k at bit
  ``k % 32``.

Columns of padding hold code 0. TensorRT has no unsigned words, so they are called int32. A matrix
has one table for each 16 rows, and rows stand in the matrix's own order: nothing is left to be
permuted when the product is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.packing import INT8_LEVELS, Packed, unpack
from edgedec.quantize.codebook import BITS, BLOCK_ROWS, LARGEST_LEVEL

UNIT = 32
"""Columns that rows are padded to."""


@dataclass(frozen=True, eq=False)
class Words:
    """A matrix ``[N, K]`` with rows ``levels[groups[r // 16], code] * scales[r]``.

    Attributes:
        words: int32 ``[N, U]`` (module docstring).
        levels: int8 ``[G, 2**bits]``, within +-63; ``-128 ... 127`` for 8 bits.
        groups: int32 ``[ceil(N / 16)]``: the table of each 16 rows.
        scales: float32 ``[N]``.

    Raises:
        ValueError: where a field is not as described. Kernels keep levels in 7 bits and do not look
            them up for codes of 8, so others would be wrong without a word.
    """

    words: NDArray[np.int32]
    levels: NDArray[np.int8]
    groups: NDArray[np.int32]
    scales: NDArray[np.float32]

    def __post_init__(self) -> None:
        rows, length = self.words.shape
        bits = self.bits
        if bits not in BITS or self.levels.dtype != np.int8:
            raise ValueError("levels must be int8 [G, 2**bits]")
        if self.words.dtype != np.int32 or not length or length % bits:
            raise ValueError(f"{length} words are no row of codes of {bits} bits")
        if self.scales.shape != (rows,) or self.scales.dtype != np.float32:
            raise ValueError(f"scales must be float32 [{rows}]")
        groups = self.groups
        named = (groups >= 0) & (groups < len(self.levels))
        if groups.shape != (-(-rows // BLOCK_ROWS),) or groups.dtype != np.int32 or not named.all():
            raise ValueError(f"groups does not name one table per {BLOCK_ROWS} rows")
        if bits == 8:
            if len(self.levels) != 1 or (self.levels != INT8_LEVELS).any():
                raise ValueError("codes of 8 bits have one table, -128 to 127")
        elif np.abs(self.levels.astype(np.int16)).max() > LARGEST_LEVEL:
            raise ValueError(f"levels must lie within +-{LARGEST_LEVEL}")

    @property
    def bits(self) -> int:
        """Of a code."""
        return int(self.levels.shape[1]).bit_length() - 1


def pack_words(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """Words ``[N, U]`` of codes ``[N, K]``.

    Raises:
        ValueError: codes that do not fit into ``bits``.
    """
    if bits not in BITS:
        raise ValueError(f"codes of {bits} bits do not exist, only {BITS}")
    if codes.dtype != np.uint8 or codes.ndim != 2 or not codes.size:
        raise ValueError("codes must be uint8 [N, K]")
    if int(codes.max()) >> bits:
        raise ValueError(f"codes reach {codes.max()}, which {bits} bits cannot hold")
    rows, columns = codes.shape
    units = -(-columns // UNIT)
    padded = codes
    if columns % UNIT:
        padded = np.zeros((rows, units * UNIT), np.uint8)
        padded[:, :columns] = codes
    if bits == 3:
        planes = np.stack([padded >> p & 1 for p in range(3)], axis=1)
        packed = np.packbits(planes.reshape(rows, 3, units, UNIT), axis=-1, bitorder="little")
        packed = np.ascontiguousarray(packed.transpose(0, 2, 1, 3))
    else:
        fields = padded.reshape(rows, -1, 8 // bits)
        packed = fields[..., 0].copy()
        for i in range(1, 8 // bits):
            packed |= fields[..., i] << (bits * i)
    return packed.reshape(rows, -1).view("<i4").astype(np.int32, copy=False)


def unpack_words(words: NDArray[np.int32], columns: int, bits: int) -> NDArray[np.uint8]:
    """Codes ``[N, columns]`` of words ``[N, U]``."""
    rows = len(words)
    stored = np.ascontiguousarray(words.astype("<i4", copy=False)).view(np.uint8)
    if bits == 3:
        planes = np.unpackbits(stored.reshape(rows, -1, 3, 4), axis=-1, bitorder="little")
        codes = planes[:, :, 0] | planes[:, :, 1] << 1 | planes[:, :, 2] << 2
    else:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = stored[..., None] >> shifts & ((1 << bits) - 1)
    result: NDArray[np.uint8] = codes.reshape(rows, -1)[:, :columns].astype(np.uint8)
    return result


def reference(
    x: NDArray[np.floating],
    words: NDArray[np.int32],
    levels: NDArray[np.number],
    groups: NDArray[np.int32],
    scales: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The product ``y = (x . level^T) * scale`` as float32 ``[..., N]``, as exact as float64 is.

    Kernels add in float32 in an order of their own. Before they round y to the type of x, they are
    within ``(K + 3) * 2**-20`` times the sum of ``|level * x * scale|`` of this, and so is
    `codebook_matmul.reference` in ``fp32``; of ordinary inputs, within ``1e-5`` of the largest y.

    Args:
        x: ``[..., K]``.
        words: int32 ``[N, U]``.
        levels: ``[G, 2**bits]``.
        groups: int32 ``[ceil(N / 16)]``.
        scales: float32 ``[N]``.
    """
    bits = levels.shape[1].bit_length() - 1
    codes = unpack_words(words, x.shape[-1], bits)
    of_row = np.repeat(groups.astype(np.intp), BLOCK_ROWS)[: len(codes)]
    weights = levels.astype(np.float64).ravel()[codes + (of_row << bits)[:, None]]
    y: NDArray[np.float32] = (x.astype(np.float64) @ weights.T * scales).astype(np.float32)
    return y


def words_of(packed: Packed) -> Words | None:
    """A matrix for GPU kernels, or None where 16 neighbouring rows would need several tables.

    That happens where rows were sorted into groups: there the groups of the rows in their own order
    are mixed. Codes, levels and scales stay what they are.
    """
    tables, numbers = np.unique(packed.levels, axis=0, return_inverse=True)
    of_row = np.repeat(numbers.reshape(-1)[packed.group_of_block], BLOCK_ROWS)[: packed.rows]
    codes, scales = unpack(packed), packed.row_scale
    if packed.row_order is not None:
        natural = np.argsort(packed.row_order)
        of_row, codes, scales = of_row[natural], codes[natural], scales[natural]
    groups = of_row[::BLOCK_ROWS]
    if (np.repeat(groups, BLOCK_ROWS)[: packed.rows] != of_row).any():
        return None
    return Words(
        words=pack_words(codes, packed.bits),
        levels=tables,
        groups=groups.astype(np.int32),
        scales=scales,
    )
