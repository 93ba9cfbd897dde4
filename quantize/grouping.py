"""Which rows of a matrix share a codebook."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import BLOCK_ROWS

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Groups:
    """Runs of rows, after they were put in an order.

    Attributes:
        starts: intp ``[G + 1]``: multiples of 16 but for the last, ascending without repetition.
        order: int32 ``[N]``: row r of a run is row ``order[r]`` of the matrix; None if it is r.
    """

    starts: NDArray[np.intp]
    order: NDArray[np.int32] | None = None


def contiguous(rows: int, groups: int) -> Groups:
    """Runs of rows as they are, of nearly the same length; fewer where rows are few."""
    blocks = -(-rows // BLOCK_ROWS)
    groups = min(groups, blocks)
    starts = np.arange(groups + 1) * blocks // groups * BLOCK_ROWS
    return Groups(np.minimum(starts, rows).astype(np.intp))
