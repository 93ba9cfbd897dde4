"""What is bound to resident caches beyond single passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.runtime.anchors import Anchors
from edgedec.runtime.bound import Bindings, BoundHead, BoundStage, Runs
from edgedec.runtime.components import Components
from edgedec.runtime.hidden import HiddenMemory
from edgedec.runtime.resident.cache import ResidentCache
from edgedec.runtime.resident.contract import CARRIED
from edgedec.runtime.resident.limits import SCORED
from edgedec.runtime.resident.memory import ResidentMemory
from edgedec.runtime.session import Array, Binding


@dataclass(frozen=True, eq=False)
class BoundSteps:
    """Several greedy steps in one launch.

    Attributes:
        stage: the decoder, over one position; running its binding runs all steps.
        choices: int64 ``[steps, rows, 1]``, overwritten by every run.
    """

    stage: BoundStage
    choices: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Parts:
    """Runs that belong together."""

    parts: Sequence[Runs]

    def run(self) -> float:
        return sum(part.run() for part in self.parts)


class ResidentBindings(Bindings):
    """Bindings that serve one batch after another of the same shape."""

    def __init__(
        self,
        components: Components,
        memory: ResidentMemory | None,
        cache: ResidentCache,
        hidden: HiddenMemory,
        anchors: dict[int, Anchors],
    ) -> None:
        super().__init__(components, memory, cache, hidden, anchors)
        self._steps: dict[int, BoundSteps] = {}

    def begin(self) -> None:
        """A batch begins: what was bound to long prompts is dropped."""
        self._forget_long()

    def greedy(self, steps: int) -> BoundSteps:
        """So many steps of a single stage with the head inside; `tokens` of 1 are fed."""
        shown = self._cache.reserve(steps)
        found = self._steps.get(steps)
        if found is None:
            choices: NDArray[np.int64] = np.zeros((steps, self._cache.rows, 1), np.int64)
            session = self._components.stage(0, "full")
            carried = {out: into for out, into in CARRIED.items() if into in session.inputs}

            def bind(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
                return session.bind_steps(
                    inputs, {**outputs, "next_token": choices}, carried, steps
                )

            stage = self._bind_stage(0, "full", 1, shown, (1, False), bind)
            found = self._steps[steps] = BoundSteps(stage, choices)
        return found

    def head(self, slot: int, new: int, last: int, want_logits: bool) -> BoundHead:
        """The head over each row's last positions, in as many runs as it takes."""
        if last <= SCORED:
            return super().head(slot, new, last, want_logits)
        key = (slot, new, last, want_logits)
        bound = self._heads.get(key)
        if bound is None:
            if self._cache.rows > 1:
                raise InputError(
                    f"several rows would be scored at {last} positions at a time, and this device "
                    f"scores {SCORED}: use fewer drafts."
                )
            session = self._components.head
            assert session is not None
            scores = self._scores(last, want_logits)
            scores.pick(new, None)
            hidden = self._hidden.view(slot, new)
            runs = []
            for begin in range(0, last, SCORED):
                part = slice(begin, begin + SCORED)
                outputs: dict[str, Array] = {"next_token": scores.next_token[:, part]}
                if scores.logits is not None:
                    outputs["logits"] = scores.logits[:, part]
                inputs: dict[str, Array] = {"hidden": hidden}
                inputs["logit_positions"] = scores.picked[:, part]
                runs.append(session.bind(inputs, outputs))
            bound = self._heads[key] = BoundHead(_Parts(runs), scores, ("head", last))
        return bound
