"""The queue of waiting states against a list for each row."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgedec.runtime.waiting import Waiting, join

WIDTH = 2


class WaitingMachine(RuleBasedStateMachine):
    """Appends, joins, keeps, reorders and forks."""

    @initialize(rows=st.integers(1, 3))
    def start(self, rows: int) -> None:
        self.waiting = Waiting(rows, WIDTH)
        self.model: list[list[int]] = [[] for _ in range(rows)]
        self.written = 0

    def new(self, data: st.DataObject) -> tuple[np.ndarray, np.ndarray | None]:
        """States of up to 3 positions that are all different, and how many are each row's own."""
        rows, size = len(self.model), data.draw(st.integers(1, 3))
        states = np.empty((rows, size, WIDTH), np.float32)
        counts = data.draw(
            st.none() | st.lists(st.integers(0, size), min_size=rows, max_size=rows).map(np.array)
        )
        for row in range(rows):
            for position in range(size):
                self.written += 1
                states[row, position] = self.written
                if counts is None or position < counts[row]:
                    self.model[row].append(self.written)
        return states, counts

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        self.waiting.append(*self.new(data))

    @rule(data=st.data())
    def take_along(self, data: st.DataObject) -> None:
        """Together with new ones, in memory that begins where these lie."""
        new, counts = self.new(data)
        rows, size = len(self.model), self.waiting.size + new.shape[1]
        flat = np.full(rows * size * WIDTH, np.nan, np.float32)
        there = flat[: new.size].reshape(new.shape)
        there[:] = new
        out = flat.reshape(rows, size, WIDTH)
        counts = join(self.waiting.states, self.waiting.counts, there, counts, out)
        assert np.isfinite(out).all()
        self.waiting.clear()
        assert self.waiting.size == 0
        self.waiting.append(out, counts)

    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        counts = [data.draw(st.integers(-1, 9)) for _ in self.model]
        self.waiting.keep(np.array(counts))
        self.model = [row[: max(n, 0)] for row, n in zip(self.model, counts, strict=True)]

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        parents = [data.draw(st.integers(0, len(self.model) - 1)) for _ in self.model]
        self.waiting.reorder(np.array(parents))
        self.model = [list(self.model[parent]) for parent in parents]

    @rule()
    def fork(self) -> None:
        if len(self.model) < 4:
            self.waiting.fork(2)
            self.model = [list(row) for row in self.model for _ in range(2)]

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.waiting.size >= max(map(len, self.model))
        counts = self.waiting.counts
        for row, expected in enumerate(self.model):
            assert len(expected) == (self.waiting.size if counts is None else counts[row])
            assert self.waiting.states[row, : len(expected), 0].tolist() == expected


TestWaiting = WaitingMachine.TestCase
TestWaiting.settings = settings(max_examples=30, stateful_step_count=12)
