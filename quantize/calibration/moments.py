"""Products of inputs summed over a text, piece by piece of the text and of the result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Square

Array = NDArray[np.float32]
ROWS = 4096
"""About so many rows are multiplied at a time."""
PIECES = 16
COLUMNS = 128
"""A product has so many pieces, but of no fewer columns of ``left``."""


def mean_product(pairs: Iterable[tuple[Array, Array]], pool: Pool) -> tuple[int, Square]:
    """How many rows there are, and left^T right over all of them, divided by that.

    Products of a pair are float32, sums over pairs float64 and in their order. Where both of a pair
    are the same array, half of the result is computed.

    Args:
        pairs: at least one ``left``, ``right``, both ``[rows, K]``; all pairs of the same object
            twice, or none.
        pool: threads; they share a product by columns.
    """
    total: NDArray[np.float64] | None = None
    tokens, same = 0, False
    for left, right in _joined(pairs):
        size, same = left.shape[1], left is right
        total = np.zeros((size, size)) if total is None else total
        _add(total, left, right, pool)
        tokens += len(left)
    assert total is not None
    if same:
        _mirror(total)
    mean = np.empty(total.shape, np.float32)
    np.divide(total, max(tokens, 1), out=mean, casting="same_kind")
    return tokens, mean


def _joined(pairs: Iterable[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    """The same rows in fewer pairs: threads wait for each other after each."""
    kept: list[tuple[Array, Array]] = []
    for pair in pairs:
        kept.append(pair)
        if sum(len(left) for left, _ in kept) >= ROWS:
            yield _concatenated(kept)
            kept = []
    if kept:
        yield _concatenated(kept)


def _concatenated(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    left = np.concatenate([left for left, _ in pairs])
    same = pairs[0][0] is pairs[0][1]
    return left, left if same else np.concatenate([right for _, right in pairs])


def _add(total: NDArray[np.float64], left: Array, right: Array, pool: Pool) -> None:
    width = _width(len(total))

    def piece(start: int) -> None:
        rows = slice(start, start + width)
        columns = slice(start if left is right else 0, None)
        total[rows, columns] += left[:, rows].T @ right[:, columns]

    pool.map(piece, range(0, len(total), width))


def _mirror(total: NDArray[np.float64]) -> None:
    """Copy what lies to the right of each piece's square on the diagonal below it."""
    width = _width(len(total))
    for start in range(0, len(total), width):
        end = start + width
        total[end:, start:end] = total[start:end, end:].T


def _width(columns: int) -> int:
    return max(columns // PIECES, COLUMNS)
