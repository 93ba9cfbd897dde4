"""The packed layout of codebook weights: what the library reads and the function bodies unpack.

Rows are padded to panels of 64, which are 4 blocks of 16; columns to units of as many as one 32-bit
word per row holds (three words for 3 bits). Per panel and unit come the words of the 16 rows of
each block, so one register holds the same columns of 16 rows, a product needs no sum across
lanes, and a panel is read from its first byte to its last. In a word of byte b:

- 4 bits, unit 8: ``code(8u+b) | code(8u+4+b) << 4``
- 2 bits, unit 16: ``code(16u+b) | code(16u+4+b) << 2 | code(16u+8+b) << 4 | code(16u+12+b) << 6``
- 8 bits, unit 4: ``code(4u+b)``
- 3 bits, unit 32: two words with the low 2 bits of 16 columns each, as for 2 bits, and one with
  the high bits of all 32: ``sum of (code(32u+4q+b) >> 2) << q``; a block's 16 first words, then its
  16 second ones, then its third ones.

Padding holds code 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import (
    BITS,
    BLOCK_ROWS,
    LARGEST_LEVEL,
    CodebookTensor,
    check_permutation,
    row_pieces,
    seven_bits,
)

PANEL_ROWS = 64
PANEL_BLOCKS = PANEL_ROWS // BLOCK_ROWS
UNIT_COLUMNS = {2: 16, 3: 32, 4: 8, 8: 4}
UNIT_WORDS = {2: 1, 3: 3, 4: 1, 8: 1}
"""Words of 4 bytes that hold one unit of one row."""
INT8_LEVELS = np.arange(-128, 128, dtype=np.int8)
"""The only table of 8-bit codes; code 0 (level -128) pads and is no weight."""
MOST_COLUMNS = 1 << 17
"""Up to here a sum of products of int8 fits int32."""

Words = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix ``[N, columns]`` as `CodebookMatMul` and `CodebookGather` take it.

    Attributes:
        weight: uint8 ``[P, U, C]``: panels, units, bytes (module docstring).
        levels: int8 ``[G, 2**bits]``, within ``+-63``; ``-128 ... 127`` for 8 bits.
        row_scale: float32 ``[N]``, in packed order.
        group_of_block: int32 ``[4 P]``: the table of each 16 rows; 0 for blocks of padding.
        bits: 2, 3, 4 or 8.
        columns: K.
        row_order: int32 ``[N]`` or None: packed row r is row ``row_order[r]`` of the matrix.

    Raises:
        ValueError: where a field is not as described.
    """

    weight: NDArray[np.uint8]
    levels: NDArray[np.int8]
    row_scale: NDArray[np.float32]
    group_of_block: NDArray[np.int32]
    bits: int
    columns: int
    row_order: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"codes of {self.bits} bits do not exist, only {BITS}")
        if not 1 <= self.columns <= MOST_COLUMNS:
            raise ValueError(f"rows of {self.columns} weights: 1 to {MOST_COLUMNS} are possible")
        expected = packed_shape(len(self.row_scale), self.columns, self.bits)
        if self.weight.shape != expected or self.weight.dtype != np.uint8:
            raise ValueError(
                f"{len(self.row_scale)} rows of {self.columns} weights of {self.bits} bits are "
                f"uint8 {list(expected)}, not {self.weight.dtype} {list(self.weight.shape)}"
            )
        groups = self.group_of_block
        named = (groups >= 0) & (groups < len(self.levels))
        if groups.shape != (PANEL_BLOCKS * expected[0],) or not named.all():
            raise ValueError("group_of_block does not name one table per block")
        _check_levels(self.levels, self.bits)
        if self.row_order is not None:
            if self.row_order.shape != self.row_scale.shape:
                raise ValueError(f"row_order must name {self.rows} rows")
            check_permutation(self.row_order)

    @property
    def rows(self) -> int:
        """N."""
        return len(self.row_scale)

    @property
    def ragged(self) -> bool:
        """Whether the last unit of a row is padded."""
        return self.columns % UNIT_COLUMNS[self.bits] != 0

    def integers(self) -> NDArray[np.int8]:
        """The levels of all weights ``[N, K]``, in packed order."""
        codes = unpack(self)
        result = np.empty(codes.shape, np.int8)
        groups = np.repeat(self.group_of_block.astype(np.intp), BLOCK_ROWS)[: self.rows]
        for rows in row_pieces(*codes.shape):
            index = codes[rows] + (groups[rows] << self.bits)[:, None]
            result[rows] = self.levels.ravel()[index]
        return result

    def dequantize(self) -> NDArray[np.float32]:
        """The matrix as float32 ``[N, K]``, in its own order of rows."""
        values = self.integers() * self.row_scale[:, None]
        if self.row_order is None:
            return values
        matrix = np.empty_like(values)
        matrix[self.row_order] = values
        return matrix


def packed_shape(rows: int, columns: int, bits: int) -> tuple[int, int, int]:
    """Panels, units and bytes ``(P, U, C)`` of a matrix."""
    return (
        -(-rows // PANEL_ROWS),
        -(-columns // UNIT_COLUMNS[bits]),
        PANEL_ROWS * UNIT_WORDS[bits] * 4,
    )


def pack(tensor: CodebookTensor) -> Packed:
    """Lay a matrix out for the kernels; codes stay what they are, levels are rounded to 7 bits.

    A codebook becomes ``rint(codebook * 63 / max|codebook|)``; its rows' scales take the factor.
    One of integers within +-63 is kept as it is.

    Raises:
        ValueError: 8-bit codes with other levels than -128 to 127 or with code 0, rows too long.
    """
    rows, columns = tensor.shape
    if tensor.bits == 8:
        if (tensor.codebooks != INT8_LEVELS.astype(np.float32)).any():
            raise ValueError("codes of 8 bits need the levels -128 to 127")
        if not tensor.codes.all():
            raise ValueError("code 0 of 8 bits is kept for padding: weights are -127 to 127")
        levels, row_scale = INT8_LEVELS[None], tensor.row_scale
        group_of_row = np.zeros(rows, np.int32)
    else:
        levels, factor = seven_bits(tensor.codebooks)
        row_scale = tensor.row_scale * factor[tensor.group_of_row].astype(np.float32)
        group_of_row = tensor.group_of_row.astype(np.int32)
    shape = packed_shape(rows, columns, tensor.bits)
    group_of_block = np.zeros(PANEL_BLOCKS * shape[0], np.int32)
    first_rows = group_of_row[::BLOCK_ROWS]
    group_of_block[: len(first_rows)] = first_rows
    return Packed(
        weight=_pack_codes(tensor.codes, tensor.bits),
        levels=levels,
        row_scale=row_scale,
        group_of_block=group_of_block,
        bits=tensor.bits,
        columns=columns,
        row_order=tensor.row_order,
    )


def unpack(packed: Packed) -> NDArray[np.uint8]:
    """The codes ``[N, K]`` of a packed matrix, in packed order."""
    bits, columns = packed.bits, packed.columns
    units = packed.weight.shape[1]
    codes = np.empty((packed.rows, columns), np.uint8)
    for rows in row_pieces(packed.rows, units * UNIT_COLUMNS[bits]):
        piece = packed.weight[rows.start // PANEL_ROWS : -(-rows.stop // PANEL_ROWS)]
        words = np.ascontiguousarray(piece).view(np.uint32)
        words = words.reshape(len(piece), units, PANEL_BLOCKS, UNIT_WORDS[bits], BLOCK_ROWS)
        stored = words.transpose(0, 2, 4, 1, 3).reshape(len(piece) * PANEL_ROWS, units, -1)
        wide = _split_words(stored, bits).view(np.uint8)
        codes[rows] = wide[: rows.stop - rows.start, :columns]
    return codes


def concatenate(tensors: Sequence[CodebookTensor]) -> CodebookTensor:
    """Stack matrices with the same number of columns, as one product with several results needs.

    Equal codebooks become one. Rows keep their order inside each part.

    Raises:
        ValueError: parts of different bits or columns, or with rows that are no multiple of 16 (a
            block would need two codebooks).
    """
    if not tensors:
        raise ValueError("nothing to stack")
    bits, columns = tensors[0].bits, tensors[0].shape[1]
    for tensor in tensors:
        if tensor.bits != bits or tensor.shape[1] != columns:
            raise ValueError(
                f"{tensor.shape[1]} columns of {tensor.bits} bits cannot be stacked on "
                f"{columns} of {bits}"
            )
        if tensor.shape[0] % BLOCK_ROWS:
            raise ValueError(f"{tensor.shape[0]} rows are no multiple of {BLOCK_ROWS}")
    books: dict[bytes, int] = {}
    kept: list[NDArray[np.float32]] = []
    groups: list[NDArray[np.uint16]] = []
    for tensor in tensors:
        number = np.empty(len(tensor.codebooks), np.int64)
        for i, book in enumerate(tensor.codebooks):
            number[i] = books.setdefault(book.tobytes(), len(books))
            if number[i] == len(kept):
                kept.append(book)
        if len(kept) > 1 << 16:
            raise ValueError(f"{len(kept)} codebooks are too many for one matrix")
        groups.append(number[tensor.group_of_row].astype(np.uint16))
    row_order = None
    if any(tensor.row_order is not None for tensor in tensors):
        first = np.cumsum([0, *(tensor.shape[0] for tensor in tensors)])
        row_order = np.concatenate(
            [
                (np.arange(len(t.codes)) if t.row_order is None else t.row_order) + start
                for t, start in zip(tensors, first, strict=False)
            ]
        ).astype(np.int32)
    return CodebookTensor(
        codes=np.concatenate([tensor.codes for tensor in tensors]),
        codebooks=np.stack(kept),
        row_scale=np.concatenate([tensor.row_scale for tensor in tensors]),
        group_of_row=np.concatenate(groups),
        bits=bits,
        row_order=row_order,
    )


def _check_levels(levels: NDArray[np.int8], bits: int) -> None:
    if levels.dtype != np.int8 or levels.shape[1:] != (1 << bits,):
        raise ValueError(f"levels must be int8 [G, {1 << bits}]")
    if bits == 8:
        if len(levels) != 1 or (levels != INT8_LEVELS).any():
            raise ValueError("codes of 8 bits have one table, -128 to 127")
    elif np.abs(levels.astype(np.int16)).max() > LARGEST_LEVEL:
        raise ValueError(f"levels must lie within +-{LARGEST_LEVEL}")


def _pack_codes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Bytes ``[P, U, C]`` of codes ``[N, K]``, a piece of rows at a time."""
    rows, columns = codes.shape
    panels, units, width = packed_shape(rows, columns, bits)
    packed = np.empty((panels, units, width), np.uint8)
    words = packed.view(np.uint32).reshape(panels, units, PANEL_BLOCKS, -1, BLOCK_ROWS)
    for piece in row_pieces(rows, units * UNIT_COLUMNS[bits]):
        first, last = piece.start // PANEL_ROWS, -(-piece.stop // PANEL_ROWS)
        shape = ((last - first) * PANEL_ROWS, units * UNIT_COLUMNS[bits])
        part = codes[piece]
        if part.shape != shape:
            part = np.zeros(shape, np.uint8)
            part[: piece.stop - piece.start, :columns] = codes[piece]
        wide = np.ascontiguousarray(part).view(np.uint32)
        joined = _join_words(wide.reshape(len(part), units, -1), bits)
        blocks = joined.reshape(last - first, PANEL_BLOCKS, BLOCK_ROWS, units, UNIT_WORDS[bits])
        words[first:last] = blocks.transpose(0, 3, 1, 4, 2)
    return packed


# The functions below treat 4 codes at a time, as the bytes of a word. What a shift carries from one
# byte into the next is masked off, so the order of bytes on this machine does not matter.


def _join_words(wide: Words, bits: int) -> Words:
    """Words ``[R, U, words]`` of codes ``[R, U, unit / 4]``, one byte each."""
    if bits == 3:
        low, high = wide & np.uint32(0x03030303), wide >> np.uint32(2) & np.uint32(0x01010101)
        words = [_merge(low[..., :4], 2), _merge(low[..., 4:], 2), _merge(high, 1)]
        return np.stack(words, axis=-1)
    return _merge(wide, bits)[..., None]


def _merge(wide: Words, bits: int) -> Words:
    """Put fields of ``bits`` bits beside each other, the first one lowest: ``[R, U]``."""
    word = wide[..., 0].copy()
    for i in range(1, wide.shape[-1]):
        word |= wide[..., i] << np.uint32(bits * i)
    return word


def _split_words(words: Words, bits: int) -> Words:
    """Codes ``[R, U * unit / 4]``, one byte each, of words ``[R, U, words]``."""
    rows, units, _ = words.shape
    fields = UNIT_COLUMNS[bits] // 4
    wide = np.empty((rows, units, fields), np.uint32)
    for i in range(fields):
        if bits == 3:
            low = words[..., i // 4] >> np.uint32(2 * (i % 4)) & np.uint32(0x03030303)
            high = words[..., 2] >> np.uint32(i) & np.uint32(0x01010101)
            wide[..., i] = low | high << np.uint32(2)
        else:
            mask = np.uint32(0x01010101 * ((1 << bits) - 1))
            wide[..., i] = words[..., 0] >> np.uint32(bits * i) & mask
    return wide.reshape(rows, -1)
