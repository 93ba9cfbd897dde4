"""CodebookMatMul for one row of x per program: GEMV, right for every M and meant for few rows.

What it costs is instructions per weight: at 4 bits the memory of an H100 delivers about 29 weights
per cycle and SM, whose four schedulers issue 128. Per weight there are 1.1 to look it up
(`lookup`), one to make its byte a float32, one to multiply and add, and one for x and its sum
(two, shared by the `HELD` rows of a thread). What ptxas makes of the loop for sm_90 is 4.7 with the
rest, half of it integer operations, of which an SM does 64 per cycle: 94 % of the memory's rate if
no cycle were lost. These are counts; the kernel was never timed.

- A byte ``b = level + 64`` becomes ``128 + b`` by being put into the mantissa of a float32, which
  is one ``prmt``. What is added so is taken off at the end of a thread: ``192 * sum(x)``. Codes of
  8 bits become ``32768 + code`` and lose the offset one by one, which has no lookup to pay for.
- A thread reads 128 bits of words at a time (64 for 2 bits, 3 x 32 for 3 bits): 16 or 32 columns of
  each of its rows. Eight threads beside each other read a line of 128 bytes of one row, so the
  warp's 8-byte pieces of x lie in 4 lines, and the sum of a row needs 3 steps across lanes. The
  other lanes have other rows, the warps other columns: a program is 8 rows only, so that 512 rows
  are on 64 SMs and 4096 rows are about four programs for each of an H100's 132, all at once.
- The words of `AHEAD` steps are asked for before any is used: at 4 bits 128 bytes by a thread,
  which is all of a row of 4096 columns, and 64 KiB by an SM. Steps behind the last column are
  skipped.
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
def two_inputs(both, dtype: tl.constexpr):
    """Both halves of a word as float32, the lower one first.

    The assembly is for an addition that reads half a register; of shifts ptxas makes two more
    instructions for each half.
    """
    if dtype == tl.bfloat16:
        low = (both << 16).to(tl.float32, bitcast=True)
        high = (both & -65536).to(tl.float32, bitcast=True)
        return low, high
    else:
        return tl.inline_asm_elementwise(
            "{ .reg .b16 low, high; mov.b32 {low, high}, $2; "
            "cvt.f32.f16 $0, low; cvt.f32.f16 $1, high; }",
            "=f,=f,r",
            [both],
            dtype=(tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )


@triton.jit
def four_inputs(x, column, there, K, quad: tl.constexpr, ALIGNED: tl.constexpr):
    """Four columns of a row of x from ``column + 4 * quad`` on, as float32; 0 behind the last.

    Codes of padding are multiplied too. With ALIGNED, rows have whole units: one load is all four,
    and a word that is there has all of its inputs.
    """
    dtype = x.dtype.element_ty
    if ALIGNED:
        # an address and a constant, which costs no instruction
        at = x.to(tl.pointer_type(tl.int64)) + column // 4 + quad
        four = tl.load(at, mask=there, other=0)
        a, b = two_inputs(four.to(tl.int32), dtype)
        c, d = two_inputs((four >> 32).to(tl.int32), dtype)
        return a, b, c, d
    else:
        at = column + 4 * quad
        a = tl.load(x + at, mask=at < K, other=0)
        b = tl.load(x + at + 1, mask=at + 1 < K, other=0)
        c = tl.load(x + at + 2, mask=at + 2 < K, other=0)
        d = tl.load(x + at + 3, mask=at + 3 < K, other=0)
        return a.to(tl.float32), b.to(tl.float32), c.to(tl.float32), d.to(tl.float32)


@triton.jit
def multiplied(
    sums,
    total,
    table,
    stored,
    x,
    column,
    there,
    K,
    HELD: tl.constexpr,
    BITS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Add the products of one step's words to ``sums`` and their inputs to ``total``."""
    first, second, third, fourth = table
    PLANES: tl.constexpr = 3 if BITS == 3 else 1
    STRIDE: tl.constexpr = 4 if BITS == 3 else (2 if BITS == 2 else 1)
    for half in tl.static_range(1 if BITS == 8 else 2):
        inputs = ()
        for quad in tl.static_range(STRIDE):
            inputs += four_inputs(x, column, there, K, STRIDE * half + quad, ALIGNED)
        if BITS != 8:
            for i in tl.static_range(4 * STRIDE):
                total += inputs[i]
        added = ()
        for held in tl.static_range(HELD):
            acc = sums[held]
            planes = stored[PLANES * held : PLANES * (held + 1)]
            for part in tl.static_range(STRIDE):
                four = planes[0]
                if BITS != 8:
                    nibbles = selector(planes, part, BITS)
                    four = biased_levels(first, second, third, fourth, nibbles, half, BITS)
                for byte in tl.static_range(4):
                    acc += weight(four, byte, BITS) * inputs[part + STRIDE * byte]
            added += (acc,)
        sums = added
    return sums, total


@triton.jit
def row_sums(
    x,
    words,
    table,
    row,
    word,
    N,
    K,
    STEP: tl.constexpr,
    AHEAD: tl.constexpr,
    HELD: tl.constexpr,
    BESIDE: tl.constexpr,
    BITS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Sums of ``level * x`` of each thread and row, over the words ``word + STEP * i``."""
    COLUMNS: tl.constexpr = 32 if BITS == 3 else 32 // BITS
    WORDS: tl.constexpr = HELD * 3 if BITS == 3 else HELD
    U = (K + 31) // 32 * BITS
    count = (K + 31) // 32 if BITS == 3 else U
    total = tl.zeros(word.shape, tl.float32)
    sums = ()
    for _ in tl.static_range(HELD):
        sums += (total,)
    start = 0
    # no `for`: the interpreter of Triton 3.6 makes no range of a scalar with NumPy 2.4
    while start < count:
        stored = ()
        for i in tl.static_range(AHEAD):
            stored += words_at(words, row, word + start + i * STEP, N, U, HELD, BESIDE, BITS)
        # without it ptxas moves loads to where their words are used, and a warp waits each time
        tl.debug_barrier()
        for i in tl.static_range(AHEAD):
            if start + i * STEP < count:
                at = start + i * STEP + word
                sums, total = multiplied(
                    sums,
                    total,
                    table,
                    stored[WORDS * i : WORDS * (i + 1)],
                    x,
                    at * COLUMNS,
                    at < count,
                    K,
                    HELD,
                    BITS,
                    ALIGNED,
                )
        start += AHEAD * STEP
    corrected = ()
    for held in tl.static_range(HELD):
        if BITS == 8:
            corrected += (sums[held],)
        else:
            corrected += (sums[held] - (128.0 + BIAS) * total,)
    return corrected


@triton.jit
def gemv(
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
    HELD: tl.constexpr,
    BESIDE: tl.constexpr,
    WARPS: tl.constexpr,
    ACROSS: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """``y[m, n]`` for one m and ``HELD * BESIDE`` rows n.

    Args:
        x: fp16 or bf16 ``[M, K]``.
        words: int32 ``[N, U]`` (`edgedec.kernels.words`).
        levels: of x's type, ``[G, 2**BITS]``; not read for 8 bits, which have one table only.
        groups: int32 ``[ceil(N / 16)]``.
        scales: float32 ``[N]``.
        M: rows of x, which the grid says too.
        N: rows of the matrix.
        K: columns.
        y: of x's type, ``[M, N]``.
        BITS: of a code.
        HELD: rows of a thread.
        BESIDE: rows of a warp's lanes; with HELD, a divisor of 16.
        WARPS: how many share the columns.
        ACROSS: words (units of 3 bits) of a row that a warp reads at a time.
        AHEAD: how many times it does so before it uses any of them.
    """
    m = tl.program_id(1)
    from_row = tl.program_id(0) * HELD * BESIDE
    # The axis of words goes first: Triton gives lanes and warps to axes in this order, for loads
    # with gaps (x) as for those without, and then nothing is moved between threads.
    beside = tl.arange(0, BESIDE)[None, :, None]
    warp = tl.arange(0, WARPS)[None, None, :]
    word = tl.arange(0, ACROSS)[:, None, None] + warp * ACROSS + beside * 0
    row = from_row + beside
    table = table_of(levels, tl.load(groups + from_row // 16), BITS)
    STEP: tl.constexpr = WARPS * ACROSS
    x += m * K
    if K % 32 == 0:
        sums = row_sums(x, words, table, row, word, N, K, STEP, AHEAD, HELD, BESIDE, BITS, True)
    else:
        sums = row_sums(x, words, table, row, word, N, K, STEP, 1, HELD, BESIDE, BITS, False)
    for held in tl.static_range(HELD):
        n = from_row + held * BESIDE + tl.arange(0, BESIDE)
        scaled = tl.sum(tl.sum(sums[held], axis=0), axis=1) * tl.load(
            scales + n, mask=n < N, other=0
        )
        tl.store(y + m * N + n, scaled.to(y.dtype.element_ty), mask=n < N)
