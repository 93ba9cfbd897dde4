"""Decode with graphs of fixed shapes: one row after another, over caches that the host writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.runtime.bound import Scores, StepOutput
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.plan import Variant
from edgedec.runtime.encoder import Memory
from edgedec.runtime.manifest import Stage
from edgedec.runtime.memory import require
from edgedec.runtime.session import empty
from edgedec.runtime.static.bias import hide
from edgedec.runtime.static.cache import StaticCache
from edgedec.runtime.static.components import StaticComponents
from edgedec.runtime.static.graph import StaticGraph
from edgedec.runtime.static.memory import StaticMemory, to_static
from edgedec.runtime.static.numbers import Numbers
from edgedec.runtime.waiting import Counts

WIDEST = 4
"""Bytes of a number in a cache, at most."""


class StaticDecoding:
    """One batch being decoded; see `edgedec.runtime.steps.Steps`.

    A graph that makes several greedy steps in one run predicts what comes next. Its predictions
    are served one by one as long as what is fed equals them, and the graph runs again from there
    where it does not.

    Args:
        components: the decoder's sessions.
        memory: what the encoder gave, None without one.
        rows: sequences decoded side by side.
        clock: is told how long runs take.

    Attributes:
        memory: as the graphs read it, None without an encoder.
        cache: keys and values.
        clock: as given.
        layers: layers run so far, summed over positions.
        seconds: time in ``stages``; the kinds that depth policies know besides stay 0.

    Raises:
        InputError: the caches do not fit into memory.
    """

    def __init__(
        self,
        components: StaticComponents,
        memory: Memory | StaticMemory | None,
        rows: int,
        *,
        clock: Clock | None = None,
    ) -> None:
        io, static, decoder = components.interface, components.static, components.decoder
        self.clock = Clock() if clock is None else clock
        self.layers = 0
        self.seconds = dict.fromkeys(("stages", "fill", "low-rank", "head"), 0.0)
        self.stages: tuple[Stage, ...] = components.stages
        self._components = components
        self._check_memory(rows)
        kinds: dict[str, dict[str, Numbers]] = {"past": {}, "cross": {}}
        for name, numbers in components.numbers.items():
            kinds[name.partition(".")[0]][name] = numbers
        self.memory: StaticMemory | None = None
        if memory is not None:
            assert decoder.source is not None
            self.memory = to_static(memory, kinds["cross"], static.kv_heads, decoder.source)
        width = io.kv_width // static.kv_heads
        self.cache = StaticCache(kinds["past"], rows, static.kv_heads, width, decoder.past)
        self._step = StaticGraph(components.step, components.bias, components.numbers)
        self._prefill = (
            None
            if components.prefill is None
            else StaticGraph(components.prefill, components.bias, components.numbers)
        )
        self._begin()

    def _check_memory(self, rows: int) -> None:
        io, decoder = self._components.interface, self._components.decoder
        read = 0 if decoder.source is None else decoder.source
        require(
            2 * WIDEST * rows * io.decoder_layers * io.kv_width * (decoder.past + read),
            f"decoding {rows} sequences at a time",
            "take fewer inputs at a time, or fewer beams",
        )

    def _begin(self) -> None:
        """Make what depends on the number of rows."""
        rows, decoder = self.cache.rows, self._components.decoder
        for graph in (self._step, self._prefill):
            if graph is not None:
                graph.forget()
        self._cross: dict[str, NDArray[Any]] = {}
        if self.memory is not None:
            assert decoder.source is not None
            bias = np.zeros((rows, 1, 1, decoder.source), np.float32)
            for row, length in enumerate(self.memory.lengths):
                hide(bias[row], int(length))
            self._cross = {"cross.bias": bias, **self.memory.arrays}
        self._ahead: list[list[int]] = [[] for _ in range(rows)]
        self._tokens: NDArray[np.int64] = np.zeros((rows, 0), np.int64)
        self._counts: Counts = None
        self._next: NDArray[np.int64] = np.zeros((rows, 1), np.int64)
        self._logits: NDArray[np.float32] | None = None
        self._wanted = False

    @property
    def rows(self) -> int:
        """Sequences decoded side by side."""
        return self.cache.rows

    def step(
        self, tokens: NDArray[np.int64], *, counts: Counts = None, want_logits: bool = False
    ) -> StepOutput:
        """Feed new tokens, run, and score the token after each row's last.

        Args:
            tokens: int64 ``[rows, T']``, T' >= 1; rows with fewer are padded at the end.
            counts: int64 ``[rows]``, how many of the T' belong to the row; all by default.
            want_logits: also return logits; not of a graph that makes several steps.
        """
        self.feed(tokens, counts, want_logits=want_logits)
        self.run(0)
        return self.read(want_logits=want_logits).last

    def feed(
        self,
        tokens: NDArray[np.int64],
        counts: Counts = None,
        *,
        last: int = 1,
        want_logits: bool = False,
    ) -> None:
        """Put new tokens on their way; arguments as of `step`, and ``last`` must be 1."""
        if last != 1 or (want_logits and self._step.tokens > 1):
            raise ValueError("a decoder of fixed shapes scores the last position only")
        self._tokens, self._counts, self._wanted = tokens, counts, want_logits
        if want_logits and self._logits is None:
            self._logits = empty(self.rows, 1, self._components.interface.vocab_size)

    def run(
        self,
        index: int,
        variant: Variant = "full",
        behind: Variant = "full",  # noqa: ARG002 - nothing waits
        rows: tuple[bool, ...] | None = None,
    ) -> None:
        """Run the only stage over what was fed.

        Raises:
            InputError: a row gets more positions than its cache holds.
        """
        if index != 0 or variant != "full" or rows is not None:
            raise ValueError("a decoder of fixed shapes runs in full")
        layers = self._components.interface.decoder_layers
        for row, tokens in enumerate(self._tokens):
            own = tokens if self._counts is None else tokens[: self._counts[row]]
            if len(own) + self.cache.lengths[row] > self.cache.past + 1:
                raise InputError(
                    f"the decoder takes {self.cache.past + 1:,} tokens, and would be fed "
                    f"{len(own) + int(self.cache.lengths[row]):,}: generate fewer, or export with "
                    "a longer --max-target."
                )
            self._take(row, own)
            self.layers += layers * len(own)

    def wait(self) -> None:
        """Nothing: there is no stage to wait before."""

    def read(self, last: int = 1, *, want_logits: bool = False) -> Scores:
        """What follows each row's last position; overwritten by the next run."""
        if last != 1 or want_logits > self._wanted:
            raise ValueError("what is read was not fed for")
        picked: NDArray[np.int64] = np.zeros((self.rows, 1), np.int64)
        return Scores(picked, self._next, self._logits if want_logits else None)

    def keep(self, on: bool) -> None:
        """Nothing is kept: no policy reads it."""
        if on:
            raise ValueError("a decoder of fixed shapes keeps no hidden states")

    def crop(self, length: int) -> None:
        """Forget every position from ``length`` on."""
        self._forget_predictions(self.cache.lengths > length)
        self.cache.crop(length)

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]``."""
        self._forget_predictions(parents != np.arange(self.rows))
        self.cache.reorder(parents)

    def fork(self, copies: int) -> None:
        """Continue every row ``copies`` times, side by side.

        Raises:
            InputError: so many caches do not fit into memory.
        """
        self._check_memory(copies * self.rows)
        self.cache.fork(copies)
        if self.memory is not None:
            self.memory = self.memory.fork(copies)
        self._begin()

    def close(self) -> None:
        """Nothing: what this holds belongs to it alone."""

    def _forget_predictions(self, rows: NDArray[np.bool_]) -> None:
        for row in np.flatnonzero(rows):
            self._ahead[row] = []

    def _take(self, row: int, tokens: NDArray[np.int64]) -> None:
        """Run a row's tokens, several at a time where there is a graph for it."""
        at = 0
        while at < len(tokens):
            if self._prefill is not None and len(tokens) - at > 1:
                piece = tokens[at : at + self._prefill.tokens]
                self._execute(self._prefill, row, piece)
                self.cache.write(row, self._prefill.new, len(piece))
                self.cache.lengths[row] += len(piece)
                self._ahead[row] = []
                at += len(piece)
            else:
                self._take_one(row, tokens[at : at + 1])
                at += 1

    def _take_one(self, row: int, token: NDArray[np.int64]) -> None:
        """Run one token, unless an earlier run has predicted it and gone on from there."""
        ahead = self._ahead[row]
        if len(ahead) > 1 and ahead[0] == token[0]:
            ahead.pop(0)
            self._next[row] = ahead[0]
        else:
            self._execute(self._step, row, token)
            # Predictions lie beyond the row's length until they are fed.
            self.cache.write(row, self._step.new, self._step.tokens)
            self._ahead[row] = self._step.chosen[0].tolist()
        self.cache.lengths[row] += 1

    def _execute(self, graph: StaticGraph, row: int, tokens: NDArray[np.int64]) -> None:
        seconds = graph.run(row, tokens, self.cache, self._cross, want_logits=self._wanted)
        self.seconds["stages"] += seconds
        self.clock.note(("stage", 0, "full", len(tokens)), seconds)
        self._next[row] = graph.chosen[0, 0]
        if self._wanted:
            assert self._logits is not None
            self._logits[row] = graph.logits[0]
