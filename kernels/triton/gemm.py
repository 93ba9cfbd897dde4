"""CodebookMatMul on tensor cores: GEMM, right for every M and meant for 2 rows of x and more.

Levels and inputs are exact in x's type and tensor cores add in float32, so a product here is that
of `gemv` but for the order of the sum. A program has 16 rows of the matrix, as many as share a
table, and 16 rows of x. Its warps have different columns (a batch of products, for Triton), so that
each unpacks what it multiplies, weights need no exchange between warps but at the end, and a matrix
of 4096 rows is 256 programs.
"""

# mypy: ignore-errors
# Triton's language: tuples grow, and constants decide what a name is.
from __future__ import annotations

import triton
import triton.language as tl

from edgedec.kernels.triton.lookup import (
    BIAS,
    biased_levels,
    selector,
    table_of,
    weight,
    words_at,
)


@triton.jit
def levels_of(planes, table, dtype: tl.constexpr, BITS: tl.constexpr):
    """Levels ``[WARPS, ROWS, columns]`` of words ``[ROWS, WARPS, ACROSS]``."""
    first, second, third, fourth = table
    COLUMNS: tl.constexpr = 32 if BITS == 3 else 32 // BITS
    STRIDE: tl.constexpr = 4 if BITS == 3 else (2 if BITS == 2 else 1)
    values = ()
    for column in tl.static_range(COLUMNS):
        if BITS == 8:
            value = weight(planes[0], column, BITS)
        else:
            nibbles = selector(planes, column % STRIDE, BITS)
            four = biased_levels(
                first, second, third, fourth, nibbles, column // (4 * STRIDE), BITS
            )
            value = weight(four, column % (4 * STRIDE) // STRIDE, BITS) - (128.0 + BIAS)
        values += (value.to(dtype),)
    # pairs of the highest bit of the column's number first, which becomes the first axis
    for step in tl.static_range(2 if BITS == 8 else (3 if BITS == 4 else (4 if BITS == 2 else 5))):
        joined = ()
        for i in tl.static_range(COLUMNS >> (step + 1)):
            joined += (tl.join(values[i], values[i + (COLUMNS >> (step + 1))]),)
        values = joined
    ROWS: tl.constexpr = planes[0].shape[0]
    WARPS: tl.constexpr = planes[0].shape[1]
    ACROSS: tl.constexpr = planes[0].shape[2]
    return tl.permute(tl.reshape(values[0], (ROWS, WARPS, ACROSS * COLUMNS)), (1, 0, 2))


@triton.jit
def tile(
    x,
    words,
    table,
    from_m,
    from_row,
    M,
    N,
    K,
    ROWS: tl.constexpr,
    WARPS: tl.constexpr,
    ACROSS: tl.constexpr,
    BITS: tl.constexpr,
):
    """Sums of ``level * x`` of each warp ``[WARPS, ROWS, ROWS]``: rows of the matrix, of x."""
    COLUMNS: tl.constexpr = 32 if BITS == 3 else 32 // BITS
    STEP: tl.constexpr = WARPS * ACROSS
    U = (K + 31) // 32 * BITS
    count = (K + 31) // 32 if BITS == 3 else U
    # lanes and warps go to axes in the order 2, 0, 1: the axis of words is the one without gaps
    warp = tl.arange(0, WARPS)[None, :, None]
    row = from_row + tl.arange(0, ROWS)[:, None, None]
    word = warp * ACROSS + tl.arange(0, ACROSS)[None, None, :]
    m = from_m + tl.arange(0, ROWS)[:, None, None]
    column = warp * (ACROSS * COLUMNS) + tl.arange(0, ACROSS * COLUMNS)[None, None, :]
    sums = tl.zeros((WARPS, ROWS, ROWS), tl.float32)
    stored = words_at(words, row, word, N, U, 1, 0, BITS)
    start = 0
    while start < count:
        following = words_at(words, row, word + start + STEP, N, U, 1, 0, BITS)
        k = start * COLUMNS + column
        inputs = tl.load(x + m * K + k, mask=(m < M) & (k < K), other=0)
        weights = levels_of(stored, table, x.dtype.element_ty, BITS)
        sums = tl.dot(weights, tl.permute(inputs, (1, 2, 0)), sums)
        stored = following
        start += STEP
    return sums


@triton.jit
def gemm(
    x,
    words,
    levels,
    groups,
    scales,
    M,
    N,
    K,
    y,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    WARPS: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """``y`` of ROWS rows of x and as many of the matrix.

    Args:
        x: fp16 or bf16 ``[M, K]``.
        words: int32 ``[N, U]`` (`edgedec.kernels.words`).
        levels: of x's type, ``[G, 2**BITS]``; not read for 8 bits, which have one table only.
        groups: int32 ``[ceil(N / 16)]``.
        scales: float32 ``[N]``.
        M: rows of x.
        N: rows of the matrix.
        K: columns.
        y: of x's type, ``[M, N]``.
        BITS: of a code.
        ROWS: 16, of a tile of a tensor core and of the matrix with one table.
        WARPS: how many share the columns.
        ACROSS: words (units of 3 bits) of a row that a warp reads at a time.
    """
    from_row = tl.program_id(0) * ROWS
    from_m = tl.program_id(1) * ROWS
    table = table_of(levels, tl.load(groups + from_row // 16), BITS)
    if K % 8 == 0:
        # a product with 8 tells Triton that rows of x begin at multiples of 16 bytes
        sums = tile(x, words, table, from_m, from_row, M, N, K // 8 * 8, ROWS, WARPS, ACROSS, BITS)
    else:
        sums = tile(x, words, table, from_m, from_row, M, N, K, ROWS, WARPS, ACROSS, BITS)
    n = from_row + tl.arange(0, ROWS)[:, None]
    m = from_m + tl.arange(0, ROWS)[None, :]
    scaled = tl.sum(sums, axis=0) * tl.load(scales + n, mask=n < N, other=0)
    tl.store(y + m * N + n, scaled.to(y.dtype.element_ty), mask=(n < N) & (m < M))
