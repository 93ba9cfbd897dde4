"""How many bits a quantized matrix takes, with everything that is needed to read it."""

from __future__ import annotations

from edgedec.quantize.codebook import BLOCK_ROWS, CodebookTensor

LEVEL_BITS = 8
SCALE_BITS = 32
GROUP_BITS = 32
ROW_ORDER_BITS = 32
BLOCK_SCALE_BITS = 16
"""Formats with a scale per block of weights, which only serve comparisons, keep it as float16."""


def stored_bits(tensor: CodebookTensor) -> float:
    """Bits per weight of the packed form without its padding."""
    return packed_bits(
        tensor.shape, tensor.bits, len(tensor.codebooks), ordered=tensor.row_order is not None
    )


def packed_bits(shape: tuple[int, int], bits: int, codebooks: int, *, ordered: bool) -> float:
    """Bits per weight of a matrix ``[N, K]`` that is packed so, without padding.

    Codes, int8 levels, a float32 scale per row, an int32 codebook number per 16 rows and the int32
    order of the rows where they are permuted.
    """
    rows, columns = shape
    total = rows * columns * bits
    total += codebooks * (1 << bits) * LEVEL_BITS
    total += rows * SCALE_BITS
    total += -(-rows // BLOCK_ROWS) * GROUP_BITS
    if ordered:
        total += rows * ROW_ORDER_BITS
    return total / (rows * columns)


def block_bits(columns: int, bits: int, block: int) -> float:
    """Bits per weight of codes with a float16 scale per row and ``block`` columns."""
    return bits + -(-columns // block) * BLOCK_SCALE_BITS / columns
