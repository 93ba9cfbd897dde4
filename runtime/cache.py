"""Key/value caches of the decoder's self-attention."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.session import Array

VIEW = 64
"""A single row's cache is shown to the graphs in steps of this many positions."""


class Cache(ABC):
    """Keys and values of every decoder layer, and how many positions of them are a row's context.

    Layers may have different lengths: positions can skip some, or wait before them.

    `lengths`, int64 ``[layers, rows]``, keeps its memory until the number of rows changes: graphs
    may read it there.

    Args:
        layers: decoder layers.
        rows: sequences decoded side by side.

    Attributes:
        rows: as given.
        capacity: positions that there is memory for.
        lengths: as above.
    """

    def __init__(self, layers: int, rows: int) -> None:
        self.rows = rows
        self.capacity = 0
        self.lengths: NDArray[np.int64] = np.zeros((layers, rows), np.int64)
        # The same as plain numbers, a row's maximum each: NumPy's would cost more than a copy.
        self._longest = [0] * layers
        self._view_lengths()

    @abstractmethod
    def reserve(self, new: int, layer: int | None = None) -> int:
        """Make room for ``new`` more positions in every row.

        Args:
            new: how many.
            layer: whose length counts; all of them by default.

        Returns:
            How many positions (at most ``capacity``) to show the graphs for that.
        """

    @abstractmethod
    def view(self, layer: int, positions: int) -> tuple[Array, Array]:
        """Keys and values of a layer, so many positions of each row; the cache's own memory."""

    @abstractmethod
    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]`` (beam search)."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of all buffers."""

    def advance(self, layers: range, counts: NDArray[np.int64] | int) -> None:
        """Note that the graphs wrote ``counts`` (or ``[rows]``) positions to these layers."""
        if isinstance(counts, int):
            for layer in layers:
                self._longest[layer] += counts
            if self.rows == 1:
                for layer in layers:
                    self._plain[layer] = self._longest[layer]
                return
        lengths = self._spans.get(layers)
        if lengths is None:
            lengths = self._spans[layers] = self.lengths[layers.start : layers.stop]
        lengths += counts
        if not isinstance(counts, int):
            self._measure(layers)

    def crop(self, length: int) -> None:
        """Forget every position from ``length`` on (rejected drafts)."""
        np.minimum(self.lengths, length, out=self.lengths)
        self._longest = [min(longest, length) for longest in self._longest]

    def _view_lengths(self) -> None:
        # Of a single row, both are equal, and Python writes a number faster than NumPy adds one.
        self._plain = self.lengths.reshape(-1).data
        self._spans: dict[range, NDArray[np.int64]] = {}

    def _measure(self, layers: range) -> None:
        for layer in layers:
            self._longest[layer] = int(self.lengths[layer].max(initial=0))


class KVCache(Cache):
    """A cache in the host's memory, written in place by the graphs.

    Per layer two float32 buffers ``[rows, capacity, width]`` and one length per row. The entries
    below a row's length are its context; what lies beyond is masked by the graphs, but must be
    finite, so buffers start as zeros.

    The graphs attend over all positions they are shown, so capacity follows the live length: it
    doubles when it runs out, and a single row, whose prefix is contiguous, is shown no more than
    the next multiple of `VIEW`.

    Args:
        layers: decoder layers.
        rows: sequences decoded side by side.
        width: channels of one position, ``kv_heads * head_dim``.
    """

    def __init__(self, layers: int, rows: int, width: int) -> None:
        super().__init__(layers, rows)
        self._width = width
        self._buffers: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self._grow(VIEW)

    def reserve(self, new: int, layer: int | None = None) -> int:
        """Make room for ``new`` more positions in every row; see `Cache.reserve`."""
        needed = new + (max(self._longest) if layer is None else self._longest[layer])
        if needed > self.capacity:
            self._grow(max(needed, 2 * self.capacity))
        return min(-(-needed // VIEW) * VIEW, self.capacity) if self.rows == 1 else self.capacity

    def view(self, layer: int, positions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keys and values ``[rows, positions, width]`` of a layer; the cache's own memory."""
        key, value = self._buffers[layer]
        return key[:, :positions], value[:, :positions]

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]`` (beam search); copies live positions only."""
        if np.array_equal(parents, np.arange(self.rows)):
            return
        for pair, live in zip(self._buffers, self._longest, strict=True):
            for buffer in pair:
                buffer[:, :live] = buffer[parents, :live]
        self.lengths[:] = self.lengths[:, parents]
        self._measure(range(len(self._buffers)))

    def fork(self, copies: int) -> None:
        """Repeat every row ``copies`` times, side by side (beams after a shared prefill)."""
        self._buffers = [
            (np.repeat(key, copies, axis=0), np.repeat(value, copies, axis=0))
            for key, value in self._buffers
        ]
        self.lengths = np.repeat(self.lengths, copies, axis=1)
        self._view_lengths()
        self.rows *= copies

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(key.nbytes + value.nbytes for key, value in self._buffers)

    def _grow(self, capacity: int) -> None:
        layers, rows = self.lengths.shape

        def larger(old: NDArray[np.float32] | None) -> NDArray[np.float32]:
            new = np.zeros((rows, capacity, self._width), np.float32)
            if old is not None:
                new[:, : self.capacity] = old
            return new

        if self._buffers:
            self._buffers = [(larger(key), larger(value)) for key, value in self._buffers]
        else:
            self._buffers = [(larger(None), larger(None)) for _ in range(layers)]
        self.capacity = capacity
