"""Products with wide matrices, cut by columns so that threads do not change results."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]
WIDTH = 192
"""Columns of a piece."""


def pieces(columns: int, width: int = WIDTH) -> Iterator[slice]:
    """Cut ``columns`` into runs of ``width``."""
    for start in range(0, columns, width):
        yield slice(start, min(start + width, columns))


def wide_product(left: Array, right: Array, out: Array, pool: Pool) -> None:
    """``out [M, N] = left [M, K] @ right [K, N]``."""

    def piece(part: slice) -> None:
        np.matmul(left, right[:, part], out=out[:, part])

    pool.map(piece, pieces(right.shape[1]))
