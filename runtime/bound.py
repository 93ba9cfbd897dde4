"""Sessions bound to the memory of one decoding, once for every shape of a pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.anchors import Anchors
from edgedec.runtime.cache import VIEW, Cache
from edgedec.runtime.components import Components
from edgedec.runtime.encoder import Memory
from edgedec.runtime.hidden import SHORT, HiddenMemory
from edgedec.runtime.session import Array, Binding, empty

if TYPE_CHECKING:
    from edgedec.runtime.resident.memory import ResidentMemory

Bind = Callable[[Mapping[str, Array], Mapping[str, Array]], Binding]
"""What `Session.bind` is."""


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


@dataclass(frozen=True, eq=False)
class Scores:
    """What the head says after several positions of each row.

    Attributes:
        picked: int64 ``[rows, P]``, which of a pass's positions to score: read by the graph.
        next_token: int64 ``[rows, P]``.
        logits: float32 ``[rows, P, vocab]``, None unless asked for.
        last: of the last of the P.
    """

    picked: NDArray[np.int64]
    next_token: NDArray[np.int64]
    logits: NDArray[np.float32] | None
    last: StepOutput = field(init=False)

    def __post_init__(self) -> None:
        logits = None if self.logits is None else self.logits[:, -1]
        object.__setattr__(self, "last", StepOutput(self.next_token[:, -1], logits))

    @property
    def outputs(self) -> dict[str, Array]:
        """What the graph writes."""
        found: dict[str, Array] = {"next_token": self.next_token}
        if self.logits is not None:
            found["logits"] = self.logits
        return found

    def pick(self, new: int, counts: NDArray[np.int64] | None) -> None:
        """Let the head read each row's last P of ``new`` positions."""
        if new > 1:
            ends = new if counts is None else counts[:, None]
            np.maximum(ends + np.arange(-self.picked.shape[1], 0), 0, out=self.picked)


@dataclass(frozen=True, eq=False)
class BoundStage:
    """A stage in a variant, ready to run over T' positions.

    Attributes:
        binding: what runs.
        input: tokens or hidden states ``[rows, T']`` or ``[rows, T', width]`` that it reads.
        output: hidden states that it writes; None of a fill variant, or with the head inside.
        layers: of the stage.
        lengths: int64 ``[rows, 1]``, where each row's first position goes: the cache's memory.
        positions: int64 ``[rows, T']`` to be filled with the places of all, None if nobody asks.
        steps: 0 to T' - 1.
        states: outputs of every layer that anchors are taken from, empty without.
        scores: of the head inside, None without.
        timed: key of the clock.
        kind: key of `Statistics.seconds`.
    """

    binding: Binding
    input: NDArray[Any]
    output: NDArray[np.float32] | None
    layers: range
    lengths: NDArray[np.int64]
    positions: NDArray[np.int64] | None
    steps: NDArray[np.int64]
    states: list[NDArray[np.float32]]
    scores: Scores | None
    timed: tuple[object, ...]
    kind: str


class Runs(Protocol):
    """What a `Binding` does."""

    def run(self) -> float:
        """Run once; returns the seconds that it took."""


@dataclass(frozen=True, eq=False)
class BoundHead:
    """The head, ready to run over the states in one slot."""

    binding: Runs
    scores: Scores
    timed: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class BoundClassifier:
    """The confidence classifier, ready to run; ``confidence`` float32 ``[rows, T']``."""

    binding: Binding
    confidence: NDArray[np.float32]


KINDS = {"full": "stages", "fill": "fill", "low-rank": "low-rank"}
"""Variant -> key of `Statistics.seconds`."""


class Bindings:
    """Every binding that a decoding has needed so far and may need again.

    Args:
        components: sessions.
        memory: of the encoder, None without.
        cache: keys and values.
        hidden: slots of hidden states.
        anchors: by stage; a stage without them gives none.
    """

    def __init__(
        self,
        components: Components,
        memory: Memory | ResidentMemory | None,
        cache: Cache,
        hidden: HiddenMemory,
        anchors: dict[int, Anchors],
    ) -> None:
        self._components = components
        self._memory = memory
        self._cache = cache
        self._hidden = hidden
        self._anchors = anchors
        self._capacity = cache.capacity
        self._stages: dict[tuple[Any, ...], BoundStage] = {}
        self._heads: dict[tuple[Any, ...], BoundHead] = {}
        self._classifiers: dict[tuple[int, int], BoundClassifier] = {}
        self._tokens: dict[int, NDArray[np.int64]] = {}
        self._logits = empty(0)

    def tokens(self, new: int) -> NDArray[np.int64]:
        """Memory for so many new tokens of each row; a step begins."""
        if self._hidden.release(new):
            self._forget_long()
        array = self._tokens.get(new)
        if array is None:
            array = self._tokens[new] = np.zeros((self._cache.rows, new), np.int64)
        return array

    def stage(
        self, index: int, variant: str, new: int, scored: tuple[int, bool] | None
    ) -> BoundStage:
        """A stage for ``new`` positions, with room for them in its caches.

        Args:
            index: of the stage.
            variant: of the stage.
            new: positions.
            scored: with the head inside, how many last positions to score, and whether in logits.
        """
        cache = self._cache
        shown = cache.reserve(new, self._components.stages[index].first)
        if cache.capacity != self._capacity:
            self._capacity = cache.capacity
            self._stages.clear()
        key = (index, variant, new, shown, scored)
        bound = self._stages.get(key)
        if bound is None:
            # A prefix that has been outgrown comes back only after a crop, and not by far.
            self._stages = {k: b for k, b in self._stages.items() if k[3] + 2 * VIEW >= shown}
            bound = self._stages[key] = self._bind_stage(index, variant, new, shown, scored)
        return bound

    def head(self, slot: int, new: int, last: int, want_logits: bool) -> BoundHead:
        """The head over each row's last positions of ``new`` in a slot."""
        key = (slot, new, last, want_logits)
        bound = self._heads.get(key)
        if bound is None:
            session = self._components.head
            assert session is not None
            scores = self._scores(last, want_logits)
            scores.pick(new, None)
            inputs: dict[str, Array] = {
                "hidden": self._hidden.view(slot, new),
                "logit_positions": scores.picked,
            }
            binding = session.bind(inputs, scores.outputs)
            bound = self._heads[key] = BoundHead(binding, scores, ("head", last))
        return bound

    def classifier(self, slot: int, new: int) -> BoundClassifier:
        """The confidence classifier over ``new`` positions in a slot."""
        bound = self._classifiers.get((slot, new))
        if bound is None:
            hidden = self._hidden.view(slot, new)
            found = empty(*hidden.shape[:2])
            binding = self._components.meta.bind({"hidden": hidden}, {"confidence": found})
            bound = self._classifiers[slot, new] = BoundClassifier(binding, found)
        return bound

    def _forget_long(self) -> None:
        """Drop what is bound to memory of more than `SHORT` positions."""
        self._tokens = {n: array for n, array in self._tokens.items() if n <= SHORT}
        self._stages = {key: b for key, b in self._stages.items() if key[2] <= SHORT}
        self._heads = {key: b for key, b in self._heads.items() if key[1] <= SHORT}
        self._classifiers.clear()

    def _bind_stage(
        self,
        index: int,
        variant: str,
        new: int,
        shown: int,
        scored: tuple[int, bool] | None,
        bind: Bind | None = None,
    ) -> BoundStage:
        session = self._components.stage(index, variant)
        stage = self._components.stages[index]
        layers = range(stage.first, stage.last)
        # Positions that only leave keys and values are on their way somewhere else.
        slot = 0 if variant == "fill" else index
        read: NDArray[Any] = self._tokens[new] if index == 0 else self._hidden.view(slot, new)
        past = self._cache.lengths[stage.first]
        lengths = past[:, None]
        positions = None
        inputs: dict[str, Array] = {
            "input_ids" if index == 0 else "hidden": read,
            "past_length": past,
        }
        if "positions" in session.inputs:
            if new > 1:
                positions = np.zeros((len(past), new), np.int64)
            inputs["positions"] = lengths if positions is None else positions
        if self._memory is not None:
            inputs.update(self._memory.arrays)
        outputs: dict[str, Array] = {}
        output = scores = None
        states: list[NDArray[np.float32]] = []
        if scored is not None:
            scores = self._scores(*scored)
            scores.pick(new, None)
            inputs["logit_positions"] = scores.picked
            outputs.update(scores.outputs)
        elif variant != "fill":
            output = outputs["hidden_out"] = self._hidden.view(index + 1, new)
        if index in self._anchors and variant == "low-rank":
            inputs.update(self._anchors[index].inputs)
        elif index in self._anchors and variant == "full":
            assert output is not None
            inner = {f"hidden.{layer}": empty(*output.shape) for layer in layers[:-1]}
            outputs.update(inner)
            states = [*inner.values(), output]
        for layer in layers:
            pair = self._cache.view(layer, shown)
            for part, array in zip(("key", "value"), pair, strict=True):
                inputs[f"past.{layer}.self.{part}"] = array
                outputs[f"present.{layer}.self.{part}"] = array
        return BoundStage(
            binding=(bind or session.bind)(inputs, outputs),
            input=read,
            output=output,
            layers=layers,
            lengths=lengths,
            positions=positions,
            steps=np.arange(new),
            states=states,
            scores=scores,
            timed=("stage", index, variant, new),
            kind=KINDS[variant],
        )

    def _scores(self, last: int, want_logits: bool) -> Scores:
        rows, vocab = self._cache.rows, self._components.interface.vocab_size
        logits = None
        if want_logits:
            size = rows * last * vocab
            if self._logits.size < size:
                # Bindings of fewer positions keep the memory that they have.
                self._logits = empty(size)
            logits = self._logits[:size].reshape(rows, last, vocab)
        picked, token = np.zeros((rows, last), np.int64), np.zeros((rows, last), np.int64)
        return Scores(picked, token, logits)
