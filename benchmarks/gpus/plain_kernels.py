"""Two plain Triton kernels for comparison: a product with float16 weights, and reading memory."""

from __future__ import annotations

import triton
import triton.language as tl

TILES = ((1, 1024, 4), (2, 1024, 4), (4, 512, 4), (4, 1024, 8), (8, 256, 4), (8, 512, 8))
"""Rows of weights, columns at a time, warps: what a product of one row is tried with."""
DOT_TILES = ((16, 128, 4), (32, 128, 4), (32, 256, 8), (64, 128, 4))
"""The same for several rows, which go through the matrix units."""
DOT_ROWS = 16
READ = 8192
"""int32 values that one program of `read` reads."""


@triton.jit
def product(  # type: ignore[no-untyped-def]
    x,
    w,
    y,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """``y [M, N] = x [M, K] . w [N, K]^T``, one program for ``BN`` rows of w; M is at most BM."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    if BM == 1:
        total = tl.zeros((BN,), dtype=tl.float32)
        for first in range(0, K, BK):
            k = first + tl.arange(0, BK)
            inside = (n < N)[:, None] & (k < K)[None, :]
            weights = tl.load(w + n[:, None] * K + k[None, :], mask=inside, other=0.0)
            values = tl.load(x + k, mask=k < K, other=0.0)
            total += tl.sum(weights.to(tl.float32) * values[None, :].to(tl.float32), axis=1)
        tl.store(y + n, total.to(y.dtype.element_ty), mask=n < N)
    else:
        m = tl.arange(0, BM)
        sums = tl.zeros((BM, BN), dtype=tl.float32)
        for first in range(0, K, BK):
            k = first + tl.arange(0, BK)
            values = tl.load(
                x + m[:, None] * K + k[None, :],
                mask=(m < M)[:, None] & (k < K)[None, :],
                other=0.0,
            )
            weights = tl.load(
                w + n[None, :] * K + k[:, None], mask=(k < K)[:, None] & (n < N)[None, :], other=0.0
            )
            sums = tl.dot(values, weights, sums)
        tl.store(
            y + m[:, None] * N + n[None, :],
            sums.to(y.dtype.element_ty),
            mask=(m < M)[:, None] & (n < N)[None, :],
        )


@triton.jit
def read(source, sums, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read all of ``source``, int32, and write one sum for each ``BLOCK`` of it."""
    i = tl.program_id(0)
    tl.store(sums + i, tl.sum(tl.load(source + i * BLOCK + tl.arange(0, BLOCK)), axis=0))
