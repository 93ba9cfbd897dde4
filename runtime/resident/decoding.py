"""Decode over caches that stay in a device's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.runtime.bound import Scores
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.plan import Variant
from edgedec.runtime.encoder import Memory
from edgedec.runtime.resident.ahead import Ahead
from edgedec.runtime.resident.cache import ResidentCache
from edgedec.runtime.resident.components import ResidentComponents
from edgedec.runtime.resident.limits import PASS, SCORED
from edgedec.runtime.resident.memory import ResidentMemory, padded_length
from edgedec.runtime.resident.workspace import Shape, Workspace
from edgedec.runtime.waiting import Counts, Waiting


class ResidentDecoding(Decoding):
    """A `Decoding` whose caches and whose source's keys and values are a device's.

    Hidden states between stages, anchors and logits are the host's. A single stage with the head
    inside makes greedy steps ahead (`Ahead`), several in one launch: tokens, lengths and positions
    go from step to step on the device.

    Args:
        components: the decoder's sessions.
        memory: what an encoder gave on any device, None without one.
        rows: sequences decoded side by side.
        anchors: keep what low-rank variants need.
        clock: is told how long each stage and the head take.

    Raises:
        InputError: the device has not enough memory.
    """

    cache: ResidentCache
    memory: ResidentMemory | None

    def __init__(
        self,
        components: ResidentComponents,
        memory: Memory | ResidentMemory | None,
        rows: int,
        *,
        anchors: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._spaces = components.workspaces
        self._limits = components.limits
        self._chained = components.chained
        self._ahead = Ahead()
        self._space: Workspace | None = None
        super().__init__(components, memory, rows, anchors=anchors, clock=clock)

    def feed(
        self,
        tokens: NDArray[np.int64],
        counts: Counts = None,
        *,
        last: int = 1,
        want_logits: bool = False,
    ) -> None:
        """Put new tokens on their way; see `Decoding.feed`.

        Raises:
            InputError: the head is inside of the stage, and scores fewer positions in one run.
        """
        if last > SCORED and self.components.head is None:
            raise InputError(
                f"{last} positions would be scored at a time, and this device scores {SCORED}: use "
                "fewer drafts."
            )
        super().feed(tokens, counts, last=last, want_logits=want_logits)

    def run(
        self,
        index: int,
        variant: Variant = "full",
        behind: Variant = "full",
        rows: Sequence[bool] | None = None,
    ) -> None:
        """Take the positions on their way through a stage; see `Decoding.run`."""
        if self._chained and self._size == 1 and self._scored == (1, False) and rows is None:
            self._step_ahead()
        else:
            self._ahead.clear()
            super().run(index, variant, behind, rows)

    def wait(self) -> None:
        """Let the positions on their way wait; see `Decoding.wait`."""
        if 0 < self.at < len(self._stages):
            self._make_room(self.at, self._size)
        super().wait()

    def crop(self, length: int) -> None:
        """Forget every position from ``length`` on, and what was foreseen."""
        self._ahead.clear()
        super().crop(length)

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]``; nothing may be on its way."""
        self._ahead.clear()
        super().reorder(parents)

    def close(self) -> None:
        """Give the memory back for the next batch of this shape."""
        if self._space is not None:
            self._spaces.give_back(self._space)
            self._space = None

    def _gather(self, index: int, behind: Variant, rows: Sequence[bool] | None) -> None:
        if self._states is not None and behind == "full":
            self._make_room(index, self._size)
        super()._gather(index, behind, rows)

    def _fill(self, waiting: Waiting, index: int) -> None:
        if index + 1 < len(self._stages):
            self._make_room(index + 1, waiting.size)
        super()._fill(waiting, index)

    def _make_room(self, index: int, new: int) -> None:
        """Take what waits before a stage through it, if it and what joins it are too many."""
        waiting = self._waiting[index]
        if not waiting.size or waiting.size + new <= PASS:
            return
        if "fill" in self._stages[index].variants:
            self._fill(waiting, index)
            return
        bound = self._bindings.stage(index, "full", waiting.size, None)
        self._execute(bound, waiting.states, waiting.counts)
        live = self.rows * waiting.size if waiting.counts is None else int(waiting.counts.sum())
        self.layers += len(bound.layers) * live
        if index + 1 < len(self._stages):
            self._make_room(index + 1, waiting.size)
            assert bound.output is not None
            self._waiting[index + 1].append(bound.output, waiting.counts)
        waiting.clear()

    def _begin(self, memory: Memory | ResidentMemory | None, rows: int, *, anchors: bool) -> None:
        source = None
        if memory is not None:
            longest = memory.arrays["cross.mask"].shape[3]
            source = padded_length(longest, self._limits.source)
        self._settle(self._spaces.lend(Shape(rows, source, anchors)))
        if memory is not None:
            assert self.memory is not None
            self.memory.fill(memory)
            self.memory = replace(self.memory, mean=memory.mean)

    def _settle(self, space: Workspace) -> None:
        """Work in a workspace from now on."""
        self._space = space
        self.cache, self.memory, self._anchors = space.cache, space.memory, space.anchors
        self._hidden, self._bindings = space.hidden, space.bindings
        self._steps = space.bindings
        self._states = None
        shape = space.shape.rows, 1
        self._chosen = Scores(np.zeros(shape, np.int64), np.zeros(shape, np.int64), None)

    def _fork(self, copies: int) -> None:
        old, mean = self._space, None if self.memory is None else self.memory.mean
        assert old is not None
        rows = np.repeat(np.arange(old.shape.rows), copies)
        new = self._spaces.lend(replace(old.shape, rows=len(rows)))
        new.cache.copy(old.cache, rows)
        for index, anchors in new.anchors.items():
            anchors.copy(old.anchors[index], rows)
        self._ahead.clear()
        self._settle(new)
        if self.memory is not None:
            assert old.memory is not None
            self.memory.repeat(old.memory, copies)
            if mean is not None:
                self.memory = replace(self.memory, mean=np.repeat(mean, copies, axis=0))
        self._spaces.give_back(old)

    def _step_ahead(self) -> None:
        """One token of each row, from an earlier launch where that foresaw what was fed."""
        assert self._states is not None
        live = None if self.counts is None else self.counts > 0
        choices = self._ahead.serve(self._states[:, 0], live)
        if choices is None:
            bound = self._steps.greedy(self._ahead.steps(self.cache.room()))
            seconds = bound.stage.binding.run()
            self.seconds["stages"] += seconds
            self.clock.note(bound.stage.timed, seconds / len(bound.choices))
            choices = self._ahead.keep(bound.choices[:, :, 0])
        self._chosen.next_token[:, 0] = choices
        layers = range(self._stages[0].first, self._stages[0].last)
        self.cache.advance(layers, 1 if self.counts is None else self.counts)
        self.layers += len(layers) * self._live
        self.at = 1
        self._inside = self._chosen
