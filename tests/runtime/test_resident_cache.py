"""Resident caches against lists of lists, and the order in which rows move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgedec.errors import InputError
from edgedec.runtime.resident.arena import Buffer, HostArena
from edgedec.runtime.resident.cache import SPARE, ResidentCache, moves

HEADS, CAPACITY, WIDTH = 2, 24, 3


def make(layers: int, rows: int) -> ResidentCache:
    return ResidentCache(HostArena(), layers, rows, (HEADS, CAPACITY, WIDTH), np.float16)


class ResidentMachine(RuleBasedStateMachine):
    """Writes as the graphs do: at each row's length, padding included."""

    @initialize(layers=st.integers(1, 2), rows=st.integers(1, 4))
    def start(self, layers: int, rows: int) -> None:
        self.cache = make(layers, rows)
        self.written = 0
        self.model: list[list[list[int]]] = [[[] for _ in range(rows)] for _ in range(layers)]
        self.addresses = [key.address for key, _ in self.views()]

    def views(self) -> list[tuple[Buffer, Buffer]]:
        return [self.cache.view(i, 1) for i in range(len(self.model))]

    @rule(data=st.data(), new=st.integers(1, 6))
    def step(self, data: st.DataObject, new: int) -> None:
        longest = max(len(row) for layer in self.model for row in layer)
        assert self.cache.room() == CAPACITY - longest
        if longest + new > CAPACITY:
            with pytest.raises(InputError, match=rf"hold 24 positions .* get {longest + new}:"):
                self.cache.reserve(new)
            return
        assert self.cache.reserve(new) == CAPACITY
        rows = self.cache.rows
        counts = data.draw(st.lists(st.integers(0, new), min_size=rows, max_size=rows))
        arena = HostArena()
        for i, layer in enumerate(self.model):
            for buffer, sign in zip(self.cache.view(i, CAPACITY), (1, -1), strict=True):
                values, number = arena.read(buffer), self.written
                for row, entries in enumerate(layer):
                    for t in range(new):
                        number += 1
                        values[row, :, len(entries) + t] = sign * (number % 1000)
                arena.write(buffer, values)
            for row, entries in enumerate(layer):
                first = self.written + row * new
                entries += [(first + t + 1) % 1000 for t in range(counts[row])]
            self.written += rows * new
        same = len(set(counts)) == 1
        self.cache.advance(range(len(self.model)), counts[0] if same else np.array(counts))

    @rule(length=st.integers(0, CAPACITY))
    def crop(self, length: int) -> None:
        self.cache.crop(length)
        self.model = [[row[:length] for row in layer] for layer in self.model]

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        rows = self.cache.rows
        parents = data.draw(st.lists(st.integers(0, rows - 1), min_size=rows, max_size=rows))
        self.cache.reorder(np.array(parents))
        self.model = [[list(layer[parent]) for parent in parents] for layer in self.model]

    @precondition(lambda self: self.cache.rows < 4)
    @rule(copies=st.integers(1, 2))
    def fork(self, copies: int) -> None:
        """A cache for more rows goes on where this one is."""
        rows = np.repeat(np.arange(self.cache.rows), copies)
        other = make(len(self.model), len(rows))
        other.copy(self.cache, rows)
        self.cache = other
        self.addresses = [key.address for key, _ in self.views()]
        self.model = [[list(layer[row]) for row in rows] for layer in self.model]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model = [[[] for _ in layer] for layer in self.model]

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.cache.lengths.tolist() == [[len(row) for row in layer] for layer in self.model]
        assert self.addresses == [key.address for key, _ in self.views()]  # as they were bound
        size = 2 * self.cache.rows * HEADS * CAPACITY * WIDTH
        assert self.cache.nbytes == 2 * len(self.model) * size
        for i, layer in enumerate(self.model):
            key, value = (HostArena().read(buffer) for buffer in self.cache.view(i, CAPACITY))
            for row, entries in enumerate(layer):
                wanted = np.broadcast_to(np.array(entries, np.float16), (HEADS, len(entries)))
                np.testing.assert_array_equal(key[row, :, : len(entries), -1], wanted)
                np.testing.assert_array_equal(value[row, :, : len(entries), 0], -wanted)


TestResidentCache = ResidentMachine.TestCase
TestResidentCache.settings = settings(max_examples=25, stateful_step_count=15)


@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=n, max_size=n)))
def test_moves_lose_nothing(parents: list[int]) -> None:
    rows = {row: row for row in range(len(parents))}
    steps = moves(parents)
    for target, source in steps:
        rows[target] = rows[source]
    rows.pop(SPARE, None)
    assert list(rows.values()) == parents
    changed = sum(row != parent for row, parent in enumerate(parents))
    circles = sum(target == SPARE for target, _ in steps)
    assert len(steps) == changed + circles
    assert 2 * circles <= changed


def test_what_stays_is_not_copied() -> None:
    assert moves([0, 1, 2]) == []
    assert moves([0, 0, 1]) == [(2, 1), (1, 0)]
    assert moves([1, 0]) == [(SPARE, 0), (0, 1), (1, SPARE)]
