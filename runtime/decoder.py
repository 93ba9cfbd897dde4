"""Run the decoder's stages over caches that stay where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.cache import KVCache
from edgedec.runtime.contract import check_head, check_stage
from edgedec.runtime.encoder import Memory
from edgedec.runtime.manifest import Interface, Stage
from edgedec.runtime.session import Session, empty


@dataclass(frozen=True, eq=False)
class StepOutput:
    """What a step says of each row's next token.

    ``next_token [rows]`` is the highest logit's index; ``logits [rows, vocab]`` is None unless
    asked for. Both are overwritten by the next step.
    """

    next_token: NDArray[np.int64]
    logits: NDArray[np.float32] | None

    def copy(self) -> StepOutput:
        """The same, in memory that no step overwrites."""
        return StepOutput(
            self.next_token.copy(), None if self.logits is None else self.logits.copy()
        )

    def replace(self, rows: NDArray[np.bool_], other: StepOutput) -> StepOutput:
        """What ``other`` says of ``rows``, and this of the rest."""
        return StepOutput(
            np.where(rows, other.next_token, self.next_token),
            None
            if self.logits is None or other.logits is None
            else np.where(rows[:, None], other.logits, self.logits),
        )


class Decoder:
    """The decoder components of a bundle: stages in order, and a head where they have none.

    Args:
        stages: stages and their sessions; a single stage contains the head.
        head: session of the head, None with a single stage.
        interface: shapes of the graphs' contract.

    Raises:
        BundleError: a graph does not fit the interface.
    """

    def __init__(
        self, stages: Sequence[tuple[Stage, Session]], head: Session | None, interface: Interface
    ) -> None:
        for stage, session in stages:
            check_stage(session, interface, stage, with_head=head is None)
        if head is not None:
            check_head(head, interface)
        self.stages = stages
        self.head = head
        self.interface = interface
        self.bound_to: Decoding | None = None
        """Whose buffers the sessions hold: several decodings may take turns."""

    def start(self, memory: Memory | None, rows: int) -> Decoding:
        """Begin decoding ``rows`` sequences side by side."""
        return Decoding(self, memory, rows)


class Decoding:
    """One batch being decoded: its caches, and the buffers that its steps use."""

    def __init__(self, decoder: Decoder, memory: Memory | None, rows: int) -> None:
        io = decoder.interface
        self._decoder = decoder
        self._stages = decoder.stages
        self._head = decoder.head
        self._memory = memory
        self.cache = KVCache(io.decoder_layers, rows, io.kv_width)
        self._bound: tuple[Any, ...] | None = None

    @property
    def rows(self) -> int:
        """Sequences decoded side by side."""
        return self.cache.rows

    def fork(self, copies: int) -> None:
        """Continue every row ``copies`` times, side by side."""
        self.cache.fork(copies)
        if self._memory is not None:
            self._memory = self._memory.fork(copies)
        self._bound = None

    def step(
        self,
        tokens: NDArray[np.int64],
        *,
        counts: NDArray[np.int64] | None = None,
        want_logits: bool = False,
    ) -> StepOutput:
        """Feed new tokens and score the token after each row's last.

        Args:
            tokens: int64 ``[rows, T']``, T' >= 1; rows with fewer are padded at the end.
            counts: int64 ``[rows]``, how many of the T' belong to the row (0 for one that has
                ended); all by default.
            want_logits: also return logits, not only the greedy choice.
        """
        rows, new = tokens.shape
        shown = self.cache.reserve(new)
        shape = (rows, new, shown, self.cache.capacity, want_logits)
        if shape != self._bound or self._decoder.bound_to is not self:
            self._bind(rows, new, shown, want_logits)
            self._bound = shape
            self._decoder.bound_to = self
        self._tokens[:] = tokens
        self._picked[:, 0] = new - 1 if counts is None else np.maximum(counts - 1, 0)
        for index, (stage, session) in enumerate(self._stages):
            # Read by pointer: where each row's new tokens go in this stage's caches.
            lengths = self._past_lengths[index]
            lengths[:] = self.cache.lengths[stage.first]
            if index in self._positions:
                np.add(lengths[:, None], self._steps, out=self._positions[index])
            session.run()
            layers = range(stage.first, stage.last)
            self.cache.advance(layers, new if counts is None else counts)
        if self._head is not None:
            self._head.run()
        return StepOutput(
            self._next_token[:, 0], None if self._logits is None else self._logits[:, 0]
        )

    def _bind(self, rows: int, new: int, shown: int, want_logits: bool) -> None:
        """Bind every buffer of a step of this shape; steps of the same shape only run."""
        io = self._decoder.interface
        self._tokens = np.zeros((rows, new), np.int64)
        self._picked = np.zeros((rows, 1), np.int64)
        self._steps = np.arange(new)
        self._past_lengths = [np.zeros(rows, np.int64) for _ in self._stages]
        self._positions = {
            index: np.zeros((rows, new), np.int64)
            for index, (_, session) in enumerate(self._stages)
            if "positions" in session.inputs
        }
        self._next_token = np.zeros((rows, 1), np.int64)
        self._logits = empty(rows, 1, io.vocab_size) if want_logits else None
        scores: dict[str, NDArray[Any]] = {"next_token": self._next_token}
        if self._logits is not None:
            scores["logits"] = self._logits
        hidden = empty(rows, new, io.d_model) if self._head is not None else None
        for index, (stage, session) in enumerate(self._stages):
            inputs: dict[str, NDArray[Any]] = {
                "input_ids": self._tokens,
                "past_length": self._past_lengths[index],
                "logit_positions": self._picked,
            }
            if index in self._positions:
                inputs["positions"] = self._positions[index]
            if self._memory is not None:
                inputs.update(self._memory.arrays)
            outputs: dict[str, NDArray[Any]] = {}
            if hidden is None:
                outputs.update(scores)
            else:
                inputs["hidden"] = hidden
                hidden = outputs["hidden_out"] = empty(rows, new, io.d_model)
            for layer in range(stage.first, stage.last):
                pair = self.cache.view(layer, shown)
                for part, array in zip(("key", "value"), pair, strict=True):
                    inputs[f"past.{layer}.self.{part}"] = array
                    outputs[f"present.{layer}.self.{part}"] = array
            for name in session.inputs:
                session.bind_input(name, inputs[name])
            session.bind_outputs(outputs)
        if self._head is not None:
            assert hidden is not None
            self._head.bind_input("hidden", hidden)
            self._head.bind_input("logit_positions", self._picked)
            self._head.bind_outputs(scores)
