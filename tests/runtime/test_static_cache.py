"""The cache of fixed size against lists, through any sequence of what decoding does to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from edgedec.runtime.manifest import Grid
from edgedec.runtime.static.cache import StaticCache
from edgedec.runtime.static.memory import join_heads
from edgedec.runtime.static.numbers import Numbers

HEADS, DEPTH = 2, 3
WIDTH = HEADS * DEPTH
KINDS = (Numbers(np.dtype(np.float32)), Numbers(np.dtype(np.uint8), Grid(0.5, 7)))


class StaticCacheMachine(RuleBasedStateMachine):
    """Writes one row at a time, as the host does."""

    @initialize(
        layers=st.integers(1, 2),
        rows=st.integers(1, 3),
        past=st.integers(1, 9),
        numbers=st.sampled_from(KINDS),
    )
    def start(self, layers: int, rows: int, past: int, numbers: Numbers) -> None:
        self.layers, self.past, self.written = layers, past, 0
        names = [f"past.{i}.self.{part}" for i in range(layers) for part in ("key", "value")]
        self.cache = StaticCache(dict.fromkeys(names, numbers), rows, HEADS, DEPTH, past)
        assert all(not numbers.load(array).any() for array in self.cache.arrays.values())
        self.model: list[list[int]] = [[] for _ in range(rows)]

    @rule(data=st.data(), tokens=st.integers(1, 4))
    def write(self, data: st.DataObject, tokens: int) -> None:
        """A run gives rows for ``tokens`` positions, of which some stay."""
        row = data.draw(st.integers(0, len(self.model) - 1))
        room = self.past + 1 - len(self.model[row])
        if room == 0:
            return
        count = data.draw(st.integers(1, tokens))
        kept = data.draw(st.integers(1, min(count, room)))
        dtype = next(iter(self.cache.arrays.values())).dtype
        new: dict[str, NDArray[Any]] = {}
        for layer in range(self.layers):
            for part in ("key", "value"):
                values = [self.value(self.written + i, layer, part) for i in range(tokens)]
                new[f"new.{layer}.self.{part}"] = np.array([values]).astype(dtype)
        self.cache.write(row, new, count)
        self.cache.lengths[row] += kept
        self.model[row] += range(self.written, self.written + kept)
        self.written += tokens

    @rule(length=st.integers(0, 9))
    def crop(self, length: int) -> None:
        self.cache.crop(length)
        self.model = [row[:length] for row in self.model]

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        count = len(self.model)
        parents = data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count))
        memory = [array.ctypes.data for array in self.cache.arrays.values()]
        self.cache.reorder(np.array(parents))
        assert memory == [array.ctypes.data for array in self.cache.arrays.values()]
        self.model = [list(self.model[parent]) for parent in parents]

    @rule(copies=st.integers(1, 2))
    def fork(self, copies: int) -> None:
        if len(self.model) * copies <= 6:
            self.cache.fork(copies)
            self.model = [list(row) for row in self.model for _ in range(copies)]

    @invariant()
    def holds(self) -> None:
        assert self.cache.lengths.tolist() == list(map(len, self.model))
        for layer in range(self.layers):
            for part in ("key", "value"):
                array = self.cache.arrays[f"past.{layer}.self.{part}"]
                joined = join_heads(array, part)
                for row, positions in enumerate(self.model):
                    kept = positions[: self.past]
                    expected = np.array([self.value(p, layer, part) for p in kept])
                    assert np.array_equal(joined[row, : len(kept)], expected.reshape(-1, WIDTH))

    @staticmethod
    def value(position: int, layer: int, part: str) -> list[int]:
        """Channels of a position, small enough for a byte."""
        seed = position * 4 + layer * 2 + (part == "key")
        return [(seed * 7 + channel * 31) % 251 for channel in range(WIDTH)]


TestStaticCache = StaticCacheMachine.TestCase
TestStaticCache.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
