"""FREE: one shallow exit, and exact caches (arXiv 2310.05424)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import Always, all_stages, check_layers, check_range, through
from edgedec.runtime.depth.plan import Measure, Plan, Request, Signals


@dataclass(frozen=True)
class Free:
    """A certain token leaves at the exit; its hidden state waits there for one that does not.

    Then all that wait go through the deep layers together, so their caches hold what full depth
    would have written for the same tokens. A batch leaves together, when its least certain row may.

    Attributes:
        exit: layers below the exit.
        measure: of confidence, see `edgedec.runtime.depth.plan.Measure`; not ``state``.
        threshold: lowest confidence that leaves; 1 and above never leave: full depth.
    """

    name: ClassVar[str] = "free"
    one_row: ClassVar[bool] = False

    exit: int
    measure: Measure = "softmax_diff"
    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_range(self.name, exit=(self.exit, 1, None), threshold=(self.threshold, 0, None))
        if self.measure == "state":
            raise InputError(
                "--depth free: measure=state compares two exits, and there is one: give "
                "softmax_diff, softmax_max or meta."
            )

    def needs(self, layers: int) -> Needs:
        """A cut at the exit.

        Raises:
            InputError: an exit that the decoder does not have.
        """
        check_layers(self.name, "exit", [self.exit], 1, layers - 1)
        if self.threshold >= 1:
            return Needs()
        return Needs(cuts=frozenset([self.exit]), meta=self.measure == "meta")

    def start(self, layout: Layout, request: Request) -> Always | FreePlanner:  # noqa: ARG002
        """Begin a batch."""
        if self.threshold >= 1:
            return Always(all_stages(layout))
        below = layout.stage_from(self.exit)
        return FreePlanner(
            self.threshold,
            Plan(through(range(below)), "look", measure=self.measure),
            Plan(through(range(below, len(layout.stages)))),
        )


LEAVE = Plan((), wait=True)


@dataclass
class FreePlanner:
    """Asks once in every step."""

    threshold: float
    shallow: Plan
    deep: Plan
    step: int = 0

    def plan(self, step: int, signals: Signals) -> Plan:
        """To the exit, then out or through."""
        if step != self.step:
            self.step = step
            return self.shallow
        assert signals.confidence is not None
        return LEAVE if float(signals.confidence.min()) >= self.threshold else self.deep
