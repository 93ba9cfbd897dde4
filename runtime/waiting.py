"""Hidden states of positions that wait before a stage of the decoder until it runs next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.float32]
Counts = NDArray[np.int64] | None
"""How many of the positions are a row's own, ``[rows]``, counted from the first; None: all."""


class Waiting:
    """Hidden states ``[rows, size, width]`` in the order of their positions.

    Args:
        rows: sequences decoded side by side.
        width: channels of a hidden state.
    """

    def __init__(self, rows: int, width: int) -> None:
        self.size = 0
        self.counts: Counts = None
        self._buffer = np.empty((rows, 0, width), np.float32)

    @property
    def states(self) -> States:
        """What waits, ``[rows, size, width]``: a view."""
        return self._buffer[:, : self.size]

    def append(self, states: States, counts: Counts) -> None:
        """Let more positions wait behind those that do; copies them."""
        new = states.shape[1]
        if self.size + new > self._buffer.shape[1]:
            rows, _, width = self._buffer.shape
            larger = np.empty((rows, 2 * (self.size + new), width), np.float32)
            larger[:, : self.size] = self.states
            self._buffer = larger
        out = self._buffer[:, : self.size + new]
        if counts is None and self.counts is None:
            out[:, self.size :] = states
        else:
            self.counts = join(self.states, self.counts, states, counts, out)
        self.size += new

    def last(self, count: int) -> States:
        """The last ``count`` positions, where all rows have the same number: a view."""
        return self._buffer[:, self.size - count : self.size]

    def clear(self) -> None:
        """Let nothing wait."""
        self.size = 0
        self.counts = None

    def keep(self, counts: NDArray[np.int64]) -> None:
        """Keep no more than the first ``counts [rows]`` of each row."""
        if self.size == 0:
            return
        here = np.minimum(self.size if self.counts is None else self.counts, np.maximum(counts, 0))
        self.size = int(here.max(initial=0))
        self.counts = None if (here == self.size).all() else here

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]``."""
        if self.size:
            self.states[:] = self.states[parents]
            if self.counts is not None:
                self.counts = self.counts[parents]

    def fork(self, copies: int) -> None:
        """Repeat every row ``copies`` times, side by side."""
        self._buffer = np.repeat(self._buffer, copies, axis=0)
        if self.counts is not None:
            self.counts = np.repeat(self.counts, copies)


def join(
    first: States, first_counts: Counts, second: States, second_counts: Counts, out: States
) -> Counts:
    """Write each row's own positions of two arrays one after the other.

    Args:
        first: ``[rows, A, width]``; may be the beginning of ``out``.
        first_counts: how many of A are the row's own.
        second: ``[rows, C, width]``; may share memory with ``out``.
        second_counts: how many of C are.
        out: ``[rows, A + C, width]``. Every entry is written, with finite values: graphs multiply
            by zero what they mask.

    Returns:
        How many of A + C are the row's own.
    """
    size, new = first.shape[1], second.shape[1]
    if first_counts is None:
        gaps = False
    else:
        follows = first_counts < size
        gaps = bool(follows.any() if second_counts is None else (second_counts[follows] > 0).any())
    if not gaps:
        out[:, size:] = second  # before `first` is written: it may lie there
        out[:, :size] = first
    else:
        assert first_counts is not None
        first, second = first.copy(), second.copy()
        out[:] = 0
        for row, begin in enumerate(first_counts):
            out[row, :begin] = first[row, :begin]
            out[row, begin : begin + new] = second[row]
    if first_counts is None and second_counts is None:
        return None
    total: NDArray[np.int64] = (size if first_counts is None else first_counts) + (
        new if second_counts is None else second_counts
    )
    return total
