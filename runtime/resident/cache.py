"""Caches of a fixed capacity that stay in a device's memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgedec.errors import InputError
from edgedec.runtime.cache import Cache
from edgedec.runtime.resident.arena import Arena, Buffer

SPARE = -1
"""In `moves`: the row beside all others that a circle of rows needs."""


class ResidentCache(Cache):
    """Keys and values of every decoder layer, written in place by the device.

    Per layer two buffers ``[rows, heads, capacity, width]``, which the graphs see whole; their
    addresses stay the same. Lengths are the host's, which tells them to the device in every run.

    Args:
        arena: the device's memory.
        layers: decoder layers.
        rows: sequences decoded side by side.
        shape: of one row: heads, capacity, width of a head.
        dtype: of the numbers.

    Raises:
        InputError: the device has not enough memory.
    """

    def __init__(
        self,
        arena: Arena,
        layers: int,
        rows: int,
        shape: tuple[int, int, int],
        dtype: DTypeLike,
    ) -> None:
        super().__init__(layers, rows)
        self.capacity = shape[1]
        self._arena = arena
        self._buffers = [
            (arena.empty((rows, *shape), dtype), arena.empty((rows, *shape), dtype))
            for _ in range(layers)
        ]
        self._spare: Buffer | None = None

    def reserve(self, new: int, layer: int | None = None) -> int:
        """Check that there is room for ``new`` more positions in every row.

        Returns:
            The capacity.

        Raises:
            InputError: there is none.
        """
        needed = new + (max(self._longest) if layer is None else self._longest[layer])
        if needed > self.capacity:
            raise InputError(
                f"the decoder's caches hold {self.capacity:,} positions on this device, and would "
                f"get {needed:,}: generate fewer tokens, or export with a longer --max-target."
            )
        return self.capacity

    def room(self) -> int:
        """Positions that the longest row has left."""
        return self.capacity - max(self._longest)

    def view(self, layer: int, positions: int) -> tuple[Buffer, Buffer]:  # noqa: ARG002 - all
        """Keys and values of a layer: graphs see the whole capacity."""
        return self._buffers[layer]

    def clear(self) -> None:
        """Forget every position; what was written stays, and is masked."""
        self.lengths[:] = 0
        self._measure(range(len(self._buffers)))

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]`` (beam search); copies rows that change."""
        steps = moves(parents.tolist())
        if not steps:
            return
        if self._spare is None and any(SPARE in step for step in steps):
            first = self._buffers[0][0]
            self._spare = self._arena.empty((1, *first.shape[1:]), first.dtype)
        for pair in self._buffers:
            for buffer in pair:
                for target, source in steps:
                    self._arena.take(self._row(buffer, target), self._row(buffer, source), [0])
        self._follow(self.lengths, parents)

    def copy(self, other: ResidentCache, rows: NDArray[np.int64]) -> None:
        """Let row r continue row ``rows[r]`` of another cache of the same model."""
        for mine, theirs in zip(self._buffers, other._buffers, strict=True):
            for target, source in zip(mine, theirs, strict=True):
                self._arena.take(target, source, rows.tolist())
        self._follow(other.lengths, rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(key.nbytes + value.nbytes for key, value in self._buffers)

    def _follow(self, lengths: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self.lengths[:] = lengths[:, rows]
        self._measure(range(len(self._buffers)))

    def _row(self, buffer: Buffer, row: int) -> Buffer:
        if row == SPARE:
            assert self._spare is not None
            return self._spare
        return buffer.rows(row, 1)


def moves(parents: Sequence[int]) -> list[tuple[int, int]]:
    """Copies that let row r be what row ``parents[r]`` was, in an order that loses nothing.

    Returns:
        Target and source of each copy. Rows that only change places in a circle go by way of
        `SPARE`, one row for all circles.
    """
    waiting = {row: parent for row, parent in enumerate(parents) if row != parent}
    found = []
    while waiting:
        needed = set(waiting.values())
        free = next((row for row in waiting if row not in needed), None)
        if free is None:  # circles only: one row of a circle steps aside
            aside = next(iter(waiting))
            found.append((SPARE, aside))
            waiting = {row: SPARE if old == aside else old for row, old in waiting.items()}
            free = aside
        found.append((free, waiting.pop(free)))
    return found
