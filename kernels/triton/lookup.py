"""Levels of codes without memory: four at a time by ``prmt``, the byte permutation of GPUs.

Levels of 2, 3 and 4 bits are integers within +-63, so a table of at most 16 is four registers of
bytes ``level + 64``, and ``prmt`` picks four bytes of two registers by the nibbles of a third one.
Codes of 4 bits are such nibbles as they are. A table in shared memory costs a load for every code
instead, and an SM does 32 of these per cycle at most: as many codes as an H100's memory delivers,
with nothing left for x.
"""

# mypy: ignore-errors
# Triton's language: tuples grow, and constants decide what a name is.
from __future__ import annotations

import triton
import triton.language as tl

BIAS: tl.constexpr = tl.constexpr(64)
"""Added to levels, so that the highest bit of a byte of a table is never set."""


@triton.jit
def permute(low, high, selector):
    """Bytes of two words, by the four lowest nibbles of the third: PTX ISA, ``prmt.b32``.

    The lower three bits of a nibble name one of eight bytes, those of ``low`` first. Where its
    highest bit is set, that byte's sign fills the result: 0 for the bytes of our tables.
    """
    return tl.inline_asm_elementwise(
        "prmt.b32 $0, $1, $2, $3;",
        "=r,r,r,r",
        [low, high, selector],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def words_at(words, row, word, N, U, HELD: tl.constexpr, BESIDE: tl.constexpr, BITS: tl.constexpr):
    """Words of rows, the planes of 3 bits one after the other. What is not there is 0."""
    found = ()
    for held in tl.static_range(HELD):
        this = row + held * BESIDE
        if BITS == 3:
            for plane in tl.static_range(3):
                here = (this < N) & (3 * word < U)
                found += (tl.load(words + this * U + 3 * word + plane, mask=here, other=0),)
        else:
            here = (this < N) & (word < U)
            found += (tl.load(words + this * U + word, mask=here, other=0),)
    return found


@triton.jit
def table_word(levels, group, part, BITS: tl.constexpr):
    """Levels ``4 * part`` and the next three of a table, as bytes ``level + BIAS``."""
    i = tl.arange(0, 4)
    found = tl.load(levels + (group << BITS) + 4 * part + i)
    return tl.sum((found.to(tl.int32) + BIAS) << (8 * i))


@triton.jit
def table_of(levels, group, BITS: tl.constexpr):
    """A table as four words; shorter ones repeat, and 8 bits have none (`gemv`)."""
    first = 0
    second = 0
    third = 0
    fourth = 0
    if BITS != 8:
        first = table_word(levels, group, 0, BITS)
        second = first
        third = first
        fourth = first
    if BITS == 3 or BITS == 4:
        second = table_word(levels, group, 1, BITS)
    if BITS == 4:
        third = table_word(levels, group, 2, BITS)
        fourth = table_word(levels, group, 3, BITS)
    return first, second, third, fourth


@triton.jit
def selector(planes, part: tl.constexpr, BITS: tl.constexpr):
    """Codes of every S-th column from ``part`` on, a nibble each (S is 1, 2, 4 for 4, 2, 3 bits).

    Args:
        planes: the word of the codes, or the three planes of 3 bits.
        part: the first of the columns, below S.
        BITS: of a code.
    """
    if BITS == 2:
        return planes[0] >> (2 * part) & 0x33333333
    elif BITS == 3:
        low = planes[0] >> part & 0x11111111
        middle = planes[1] << 1 if part == 0 else planes[1] >> (part - 1)
        high = planes[2] << (2 - part) if part < 2 else planes[2] >> (part - 2)
        return low | (middle & 0x22222222) | (high & 0x44444444)
    else:
        return planes[0]


@triton.jit
def biased_levels(first, second, third, fourth, nibbles, half: tl.constexpr, BITS: tl.constexpr):
    """Four bytes ``level + BIAS`` of the nibbles in the lower (0) or upper (1) half of a word."""
    if BITS == 4:
        below = permute(first, second, nibbles >> (16 * half))
        above = permute(third, fourth, (nibbles ^ -0x77777778) >> (16 * half))
        return below | above
    else:
        return permute(first, second, nibbles >> (16 * half))


@triton.jit
def weight(four, byte: tl.constexpr, BITS: tl.constexpr):
    """A byte of a word as float32: ``128 + byte``, or a level where codes have 8 bits."""
    if BITS == 8:
        return permute(four, 0x47000000, 0x7404 + 16 * byte).to(tl.float32, bitcast=True) - 32896.0
    else:
        return permute(four, 0x43000000, 0x7044 + 256 * byte).to(tl.float32, bitcast=True)
