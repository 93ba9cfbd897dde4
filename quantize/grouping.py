"""Which rows of a matrix share a codebook.

JLCM (arXiv 2309.17361) groups neurons by the distribution of their weights and puts them in a new
order; how is not in what is published. Row scales already take differences of size, so what is left
to share is the shape, and the shape that matters to a codebook is how heavy the tails are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import BLOCK_ROWS

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
MOST_PLACES = 1024
"""Where groups may be cut; time and memory grow with its square."""


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


def by_distribution(weight: Array, groups: int) -> Groups:
    """Rows ``[N, K]`` with tails alike; every group has rows, and fewer groups where rows are few.

    Rows are sorted by how heavy their tails are and cut where that differs most: of all cuts at
    multiples of 16 rows, those that leave the least variance inside groups, found by dynamic
    programming (Fisher 1958). Of very many rows only some of the multiples are looked at.
    """
    weight_of_tails = tails(weight)
    order = np.argsort(weight_of_tails, kind="stable").astype(np.int32)
    starts = _cuts(weight_of_tails[order], groups)
    return Groups(starts, None if (np.diff(order) == 1).all() else order)


def tails(weight: Array) -> Doubles:
    """The logarithm of each row's kurtosis ``[N]``: 1.1 for normal weights, 0 for rows of zeros.

    It does not depend on the size of a row.
    """
    result = np.zeros(len(weight))
    for row, values in enumerate(weight):
        largest = float(np.abs(values).max())
        if largest > 0:
            squares = (values / np.float32(largest)).astype(np.float64) ** 2
            result[row] = np.log(np.mean(squares**2) / np.mean(squares) ** 2)
    return result


def _cuts(ascending: Doubles, groups: int) -> NDArray[np.intp]:
    """Where to cut ``[N]`` into groups of whole blocks: ``[G + 1]``."""
    rows = len(ascending)
    size = BLOCK_ROWS * -(-rows // (BLOCK_ROWS * MOST_PLACES))
    edges = np.minimum(np.arange(-(-rows // size) + 1) * size, rows)
    blocks = len(edges) - 1
    groups = min(groups, blocks)
    sums, squares = (
        np.concatenate([[0.0], np.cumsum(x)])[edges] for x in (ascending, ascending**2)
    )
    # cost[i, j]: of a group of blocks i to j - 1; where it would have none, infinite
    count = edges[None] - edges[:, None]
    moment = sums[None] - sums[:, None]
    cost = squares[None] - squares[:, None] - moment**2 / np.maximum(count, 1)
    cost[count <= 0] = np.inf
    least = cost[0]
    last: list[NDArray[np.intp]] = []
    for _ in range(1, groups):
        through = least[:, None] + cost
        last.append(through.argmin(axis=0))
        least = through.min(axis=0)
    cuts = [blocks]
    for before in reversed(last):
        cuts.append(int(before[cuts[-1]]))
    return edges[[0, *reversed(cuts)]].astype(np.intp)
