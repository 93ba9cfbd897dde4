"""Early exit: leave the decoder as soon as a token looks certain (CALM, arXiv 2207.07061)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import Always, all_stages, check_layers, check_range, through
from edgedec.runtime.depth.plan import Measure, Plan, Request, Signals


@dataclass(frozen=True)
class EarlyExit:
    """At every exit, ask how certain the next token is; at the threshold, choose it there.

    The layers above get keys and values of the exit's hidden state, when a later token reaches
    them. A batch leaves together, when its least certain row may.

    Attributes:
        measure: of confidence, see `edgedec.runtime.depth.plan.Measure`. ``state`` compares hidden
            states, so it never leaves at the first exit.
        threshold: lambda; it falls to 0.9 lambda along the text, as an early error costs more. 1
            and above never leave: full depth.
        tau: how fast it falls,
        length: until this generated position; the source takes the most tokens allowed, on which a
            token should not depend.
        min: layers below the first exit, at least.
        exits: layers after which to ask; none given: wherever the bundle is cut.
    """

    name: ClassVar[str] = "early-exit"
    one_row: ClassVar[bool] = False

    measure: Measure = "softmax_diff"
    threshold: float = 0.9
    tau: float = 4.0
    length: int = 64
    min: int = 1
    exits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_range(
            self.name,
            threshold=(self.threshold, 0, None),
            tau=(self.tau, 0, 1000),
            length=(self.length, 1, None),
            min=(self.min, 1, None),
        )

    def used(self, exits: tuple[int, ...]) -> tuple[int, ...]:
        """Those of ``exits`` that are not too low.

        Raises:
            InputError: none is left, or too few to compare.
        """
        found = tuple(layer for layer in exits if layer >= self.min)
        least = 2 if self.measure == "state" else 1
        if len(found) < least:
            raise InputError(
                f"--depth early-exit: there are {len(found)} exits after {self.min} or more layers,"
                f" measure={self.measure} needs {least}: give more exits, a smaller min, or cut "
                "the decoder in more stages."
            )
        return found

    def threshold_at(self, t: int) -> float:
        """Of token ``t`` (0: the first): 0.9 lambda + 0.1 lambda exp(-tau t / length)."""
        return self.threshold * (0.9 + 0.1 * math.exp(-self.tau * t / self.length))

    def needs(self, layers: int) -> Needs:
        """Cuts at the exits, and fill variants of all layers above the first.

        Raises:
            InputError: an exit that the decoder does not have.
        """
        check_layers(self.name, "exits", self.exits, 1, layers - 1)
        if self.threshold >= 1:
            return Needs()
        exits = self.used(self.exits or tuple(range(1, layers)))
        return Needs(
            cuts=frozenset(exits),
            fill=frozenset(range(exits[0], layers)),
            meta=self.measure == "meta",
        )

    def start(self, layout: Layout, request: Request) -> Always | EarlyExitPlanner:  # noqa: ARG002
        """Begin a batch."""
        if self.threshold >= 1:
            return Always(all_stages(layout))
        given = self.exits or tuple(first for first, _ in layout.stages[1:])
        borders = [0, *(layout.stage_from(layer) for layer in self.used(given))]
        count = len(layout.stages)
        # `state` runs through its first exit: there is nothing to compare with yet.
        asked = borders[:1] + borders[2:] if self.measure == "state" else borders
        looks = tuple(
            Plan(through(range(first, last)), "look", "fill", measure=self.measure)
            for first, last in pairwise(asked)
        )
        rest = Plan(through(range(asked[-1], count)), behind="fill")
        return EarlyExitPlanner(self, (*looks, rest))


LEAVE = Plan((), behind="fill", wait=True)


@dataclass
class EarlyExitPlanner:
    """Goes up exit by exit.

    Attributes:
        parts: from the bottom to each exit, and from the last exit to the top.
    """

    policy: EarlyExit
    parts: tuple[Plan, ...]
    step: int = 0
    part: int = 0

    def plan(self, step: int, signals: Signals) -> Plan:
        """Up to the next exit, or out."""
        if step != self.step:
            self.step, self.part = step, 0
            return self.parts[0]
        assert signals.confidence is not None
        if float(signals.confidence.min()) >= self.policy.threshold_at(step):
            return LEAVE
        self.part += 1
        return self.parts[self.part]
