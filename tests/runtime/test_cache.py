"""The cache against lists of lists, through any sequence of what decoding does to it."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgedec.runtime.cache import VIEW, KVCache

WIDTH = 2
Position = tuple[int, int]
"""What a position holds: a number for its key and one for its value."""


class CacheMachine(RuleBasedStateMachine):
    """Writes as the graphs do: at each row's length, padding included."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    @initialize(layers=st.integers(1, 3), rows=st.integers(1, 3))
    def start(self, layers: int, rows: int) -> None:
        self.cache = KVCache(layers, rows, WIDTH)
        self.memory = self.cache.lengths.ctypes.data
        self.model: list[list[list[Position]]] = [[[] for _ in range(rows)] for _ in range(layers)]

    @property
    def rows(self) -> int:
        return len(self.model[0])

    @rule(data=st.data(), new=st.integers(1, 90))
    def step(self, data: st.DataObject, new: int) -> None:
        """Feed ``new`` positions to a range of layers, of which each row keeps some."""
        layers = len(self.model)
        first = data.draw(st.integers(0, layers - 1))
        last = data.draw(st.integers(first + 1, layers))
        counts = data.draw(st.lists(st.integers(0, new), min_size=self.rows, max_size=self.rows))
        pointers = [self.cache.view(i, 1)[0].ctypes.data for i in range(layers)]
        capacity = self.cache.capacity
        layer = data.draw(st.none() | st.just(first)) if last == first + 1 else None
        shown = self.cache.reserve(new, layer)
        counted = self.model if layer is None else [self.model[layer]]
        longest = max(len(row) for layer in counted for row in layer)
        assert longest + new <= shown <= self.cache.capacity
        if self.rows == 1:
            assert shown == min(-(-(longest + new) // VIEW) * VIEW, self.cache.capacity)
        if longest + new <= capacity:  # room enough: nothing moves
            assert self.cache.capacity == capacity
            assert pointers == [self.cache.view(i, 1)[0].ctypes.data for i in range(layers)]
        else:
            assert self.cache.capacity >= 2 * capacity
        for i in range(first, last):
            key, value = self.cache.view(i, shown)
            assert key.shape == value.shape == (self.rows, shown, WIDTH)
            assert self.rows > 1 or key.flags.c_contiguous
            for row, entries in enumerate(self.model[i]):
                begin = len(entries)
                for t in range(new):
                    self.written += 1
                    key[row, begin + t], value[row, begin + t] = self.written, -self.written
                    if t < counts[row]:
                        entries.append((self.written, -self.written))
        same = len(set(counts)) == 1
        self.cache.advance(range(first, last), counts[0] if same else np.array(counts))

    @rule(length=st.integers(0, 200))
    def crop(self, length: int) -> None:
        self.cache.crop(length)
        self.model = [[row[:length] for row in layer] for layer in self.model]

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        parents = data.draw(
            st.lists(st.integers(0, self.rows - 1), min_size=self.rows, max_size=self.rows)
        )
        self.cache.reorder(np.array(parents))
        self.model = [[list(layer[parent]) for parent in parents] for layer in self.model]

    @rule(copies=st.integers(1, 3))
    def fork(self, copies: int) -> None:
        if self.rows * copies > 6:
            return
        self.cache.fork(copies)
        self.memory = self.cache.lengths.ctypes.data
        self.model = [[list(row) for row in layer for _ in range(copies)] for layer in self.model]

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.cache.rows == self.rows
        lengths = [[len(row) for row in layer] for layer in self.model]
        assert self.cache.lengths.tolist() == lengths
        assert self.memory == self.cache.lengths.ctypes.data  # graphs may read it there
        assert self.cache.lengths.dtype == np.int64
        size = 4 * WIDTH * self.cache.capacity * self.rows
        assert self.cache.nbytes == 2 * len(self.model) * size
        for i, layer in enumerate(self.model):
            key, value = self.cache.view(i, self.cache.capacity)
            assert key.flags.c_contiguous
            assert np.isfinite(key).all()  # what a mask hides is multiplied by zero, not skipped
            assert np.isfinite(value).all()
            for row, entries in enumerate(layer):
                wanted = np.array(entries, np.float32).reshape(-1, 2)
                np.testing.assert_array_equal(key[row, : len(entries), 0], wanted[:, 0])
                np.testing.assert_array_equal(value[row, : len(entries), -1], wanted[:, 1])


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=30, stateful_step_count=20)


def test_room_follows_the_live_length() -> None:
    """Doubling: bytes copied over a whole generation stay below twice the bytes at its end."""
    cache = KVCache(1, 2, WIDTH)
    capacities = set()
    for _ in range(1000):
        cache.reserve(1)
        cache.advance(range(1), np.array([1, 1]))
        capacities.add(cache.capacity)
    assert sorted(capacities) == [64, 128, 256, 512, 1024]
