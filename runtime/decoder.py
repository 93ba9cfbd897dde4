"""Run the decoder's stages over caches that stay where they are.

Primitives without any knowledge of policies or searches: feed tokens, take them through stages in
any variant, leave them waiting on the way, read the head, forget what was rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.anchors import Anchors
from edgedec.runtime.bound import Bindings, BoundHead, BoundStage, Scores, StepOutput
from edgedec.runtime.cache import Cache, KVCache
from edgedec.runtime.components import Components
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.confidence import softmax_max
from edgedec.runtime.depth.plan import Variant
from edgedec.runtime.encoder import Memory
from edgedec.runtime.hidden import HiddenMemory
from edgedec.runtime.manifest import Stage
from edgedec.runtime.waiting import Counts, States, Waiting, join

if TYPE_CHECKING:
    from edgedec.runtime.resident.memory import ResidentMemory

__all__ = ["Decoding", "Scores", "StepOutput"]


class Decoding:
    """One batch being decoded: its caches, and the hidden states on their way through the stages.

    Args:
        components: the decoder's sessions.
        memory: what the encoder gave, None without one.
        rows: sequences decoded side by side.
        anchors: keep what low-rank variants need.
        clock: is told how long each stage and the head take.

    Attributes:
        cache: keys and values.
        at: the stage that comes next for the positions on their way.
        counts: how many of the positions on their way are each row's own, int64 ``[rows]``;
            None for all.
        layers: layers run in full so far, summed over positions.
        seconds: time in ``stages``, ``fill``, ``low-rank`` and ``head`` so far.
    """

    def __init__(
        self,
        components: Components,
        memory: Memory | ResidentMemory | None,
        rows: int,
        *,
        anchors: bool = False,
        clock: Clock | None = None,
    ) -> None:
        io = components.interface
        self.components = components
        self.memory: Memory | ResidentMemory | None
        self.clock = Clock() if clock is None else clock
        self.cache: Cache
        self.at = 0
        self.counts: Counts = None
        self.layers = 0
        self.seconds = dict.fromkeys(("stages", "fill", "low-rank", "head"), 0.0)
        self._stages = components.stages
        self._waiting = [Waiting(rows, io.d_model) for _ in self._stages]
        self._kept: list[Waiting] | None = None
        self._size = 0  # positions on their way
        self._live = 0  # and how many of them are a row's own
        self._slot = 0  # where their states are
        self._states: NDArray[Any] | None = None
        self._before: States | None = None
        self._inside: Scores | None = None
        self._scored: tuple[int, bool] | None = None
        self._hidden: HiddenMemory
        self._bindings: Bindings
        self._anchors: dict[int, Anchors]
        self._begin(memory, rows, anchors=anchors)

    def _begin(self, memory: Memory | ResidentMemory | None, rows: int, *, anchors: bool) -> None:
        """Make caches, and the memory of passes."""
        io = self.components.interface
        self.memory = memory
        self.cache = KVCache(io.decoder_layers, rows, io.kv_width)
        self._anchors = anchors_of(self.components, rows) if anchors else {}
        self._bind()

    def _bind(self) -> None:
        """Make the memory of passes, for these rows."""
        self._hidden = HiddenMemory(self.rows, self.components.interface.d_model)
        self._bindings = Bindings(
            self.components, self.memory, self.cache, self._hidden, self._anchors
        )
        self._states = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The decoder's stages, in order."""
        return self._stages

    @property
    def rows(self) -> int:
        """Sequences decoded side by side."""
        return self.cache.rows

    @property
    def states(self) -> States:
        """Hidden states ``[rows, T', d_model]`` on their way; overwritten by what runs next."""
        if self._states is None or self.at == 0:
            raise ValueError("no hidden states are on their way")
        return self._states

    def step(
        self,
        tokens: NDArray[np.int64],
        *,
        counts: Counts = None,
        want_logits: bool = False,
    ) -> StepOutput:
        """Feed new tokens, run all stages in full, and score the token after each row's last.

        Args:
            tokens: int64 ``[rows, T']``, T' >= 1; rows with fewer are padded at the end.
            counts: int64 ``[rows]``, how many of the T' belong to the row (0 for one that has
                ended); all by default.
            want_logits: also return logits, not only the greedy choice.
        """
        self.feed(tokens, counts, want_logits=want_logits)
        for index in range(len(self._stages)):
            self.run(index)
        return self.read(want_logits=want_logits).last

    def feed(
        self,
        tokens: NDArray[np.int64],
        counts: Counts = None,
        *,
        last: int = 1,
        want_logits: bool = False,
    ) -> None:
        """Put new tokens on their way, before the first stage; what was on its way is gone.

        Args:
            tokens: as in `step`.
            counts: as in `step`.
            last: what `read` will be asked for: a bundle of a single stage must know now.
            want_logits: likewise.
        """
        new = tokens.shape[1]
        self._states = self._bindings.tokens(new)
        self._states[:] = tokens
        self._before = None
        self.at = self._slot = 0
        self._size = new
        self.counts = counts
        self._live = self.rows * new if counts is None else int(counts.sum())
        self._scored = None if self.components.head is not None else (last, want_logits)

    def run(
        self,
        index: int,
        variant: Variant = "full",
        behind: Variant = "full",
        rows: Sequence[bool] | None = None,
    ) -> None:
        """Take the positions on their way through a stage, with those that wait before it.

        Args:
            index: of the stage, ``at`` or a later one: the stages between are skipped for good.
            variant: what the stage does with them.
            behind: what it does with those that wait: ``full`` takes them along; ``fill`` writes
                their keys and values, then they wait before the next stage, or are done. Where
                nothing is on its way, they set off.
            rows: which rows it is for; the others keep their states and write nothing. None: all.
        """
        if index < self.at:
            raise ValueError(f"the positions on their way are past stage {index}")
        self._gather(index, behind, rows)
        self.at = index + 1
        counts, others = self.counts, None
        if rows is not None:
            mine = np.array(rows)
            counts = np.where(mine, self._size if counts is None else counts, 0)
            others = ~mine[:, None, None]
            if not counts.any():
                return
        assert self._states is not None
        bound = self._bindings.stage(index, variant, self._size, self._scored)
        self._execute(bound, self._states, counts)
        self._inside = bound.scores
        if variant == "full":
            # All live rows were computed, whichever it counts for.
            self.layers += len(bound.layers) * self._live
        if bound.output is None:
            return  # a fill variant leaves the states as they are
        if others is not None and index > 0:
            np.copyto(bound.output, bound.input, where=others)
        self._before = bound.input if index > 0 else None
        self._states = bound.output
        self._slot = index + 1
        if bound.states:
            self._anchors[index].set(bound.states, counts)
        if self._kept is not None:
            self._kept[index].append(bound.output, counts)

    def wait(self) -> None:
        """Let the positions on their way wait before the stage that comes next, if there is one."""
        if 0 < self.at < len(self._stages):
            self._waiting[self.at].append(self.states, self.counts)
        self._states = None

    def read(self, last: int = 1, *, want_logits: bool = False) -> Scores:
        """The head at the last positions of each row on its way.

        Args:
            last: how many positions; a row that has fewer repeats its first.
            want_logits: also return logits.
        """
        if self._inside is not None and self.components.head is None:
            return self._inside
        assert self._states is not None
        head = self._bindings.head(self._slot, self._size, last, want_logits)
        head.scores.pick(self._size, self.counts)
        return self._score(head)

    def keep(self, on: bool) -> None:
        """Begin to keep what every stage gives, for `shadow` (one row), or forget it."""
        if on and self._kept is None:
            width = self.components.interface.d_model
            self._kept = [Waiting(self.rows, width) for _ in self._stages]
        elif not on:
            self._kept = None

    def shadow(
        self, stages: Sequence[int], positions: int, skip: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Greedy choices after earlier stages, at positions that were kept (one row).

        Args:
            stages: after which the head is read.
            positions: how many positions.
            skip: the last so many that were kept are left out.

        Returns:
            Tokens int64 and their probabilities float32, both ``[len(stages), positions]``.
        """
        assert self._kept is not None
        shape = (len(stages), positions)
        count = len(stages) * positions
        memory = self._hidden.view(0, count).reshape(*shape, -1)
        for out, stage in zip(memory, stages, strict=True):
            out[:] = self._kept[stage].last(positions + skip)[0, :positions]
        scores = self._score(self._bindings.head(0, count, count, True))
        assert scores.logits is not None
        probabilities = softmax_max(scores.logits[0])
        return scores.next_token.reshape(shape).copy(), probabilities.reshape(shape)

    def last_states(self) -> tuple[States | None, States]:
        """Each row's last state before and after the last stage it passed, ``[rows, d_model]``.

        Before the first stage there is none.
        """
        before = None if self._before is None else self._last(self._before)
        return before, self._last(self.states)

    def confidence(self) -> NDArray[np.float32]:
        """The trained classifier's word on each row's last position, ``[rows]``."""
        classifier = self._bindings.classifier(self._slot, self._size)
        self.seconds["head"] += classifier.binding.run()
        return self._last(classifier.confidence)

    def crop(self, length: int) -> None:
        """Forget every position from ``length`` on, in caches and where they wait."""
        for stage, waiting in zip(self._stages, self._waiting, strict=True):
            if waiting.size:
                waiting.keep(length - self.cache.lengths[stage.first])
        self.cache.crop(length)
        self._states = None

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]``; nothing may be on its way."""
        self.cache.reorder(parents)
        for waiting in self._waiting:
            waiting.reorder(parents)
        for anchors in self._anchors.values():
            anchors.reorder(parents)
        self._states = None

    def fork(self, copies: int) -> None:
        """Continue every row ``copies`` times, side by side; nothing may be on its way."""
        for waiting in self._waiting:
            waiting.fork(copies)
        self._fork(copies)

    def close(self) -> None:
        """Give back what the next batch can use; nothing is decoded after that."""

    def _fork(self, copies: int) -> None:
        """Continue the rows of caches and memory, and make the memory of passes again."""
        assert isinstance(self.cache, KVCache)
        self.cache.fork(copies)
        for anchors in self._anchors.values():
            anchors.fork(copies)
        if self.memory is not None:
            assert isinstance(self.memory, Memory)
            self.memory = self.memory.fork(copies)
        self._bind()

    def _gather(self, index: int, behind: Variant, rows: Sequence[bool] | None) -> None:
        """Deal with what waits before a stage."""
        waiting = self._waiting[index]
        if not waiting.size:
            if self._states is None:
                raise ValueError(f"nothing is on its way to stage {index}")
            return
        if rows is not None:
            raise ValueError("some rows only, while positions wait")
        if self._states is None:
            out = self._hidden.view(index, waiting.size)
            out[:] = waiting.states
            self._send(out, waiting.counts, index)
            waiting.clear()
        elif behind == "full":
            out = self._hidden.view(index, waiting.size + self._size)
            counts = join(waiting.states, waiting.counts, self.states, self.counts, out)
            self._send(out, counts, index)
            waiting.clear()
        else:
            self._fill(waiting, index)

    def _send(self, states: States, counts: Counts, slot: int) -> None:
        """Put states that lie in a slot on their way."""
        self._states, self._slot, self._size = states, slot, states.shape[1]
        self.counts = counts
        self._live = self.rows * self._size if counts is None else int(counts.sum())

    def _fill(self, waiting: Waiting, index: int) -> None:
        """Write keys and values of what waits before a stage; it waits before the next one then."""
        bound = self._bindings.stage(index, "fill", waiting.size, None)
        self._execute(bound, waiting.states, waiting.counts)
        if index + 1 < len(self._stages):
            self._waiting[index + 1].append(waiting.states, waiting.counts)
        waiting.clear()

    def _execute(self, bound: BoundStage, states: NDArray[Any], counts: Counts) -> None:
        if bound.input is not states:
            bound.input[:] = states
        if bound.positions is not None:
            np.add(bound.lengths, bound.steps, out=bound.positions)
        if bound.scores is not None:
            bound.scores.pick(len(bound.steps), counts)
        seconds = bound.binding.run()
        self.seconds[bound.kind] += seconds
        self.clock.note(bound.timed, seconds)
        self.cache.advance(bound.layers, len(bound.steps) if counts is None else counts)

    def _score(self, head: BoundHead) -> Scores:
        seconds = head.binding.run()
        self.seconds["head"] += seconds
        self.clock.note(head.timed, seconds)
        return head.scores

    def _last(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.counts is None:
            return values[:, -1]
        return values[np.arange(len(values)), np.maximum(self.counts - 1, 0)]


def anchors_of(components: Components, rows: int) -> dict[int, Anchors]:
    """Memory for the anchors of every stage that has a low-rank variant."""
    return {
        index: Anchors(range(stage.first, stage.last), rows, components.interface.d_model)
        for index, stage in enumerate(components.stages)
        if "low-rank" in stage.variants
    }
