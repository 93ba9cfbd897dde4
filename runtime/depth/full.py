"""Full depth: every stage at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.plan import Pass, Plan, Request, Signals


@dataclass(frozen=True)
class Full:
    """Run all stages of the decoder, whatever the step."""

    name: ClassVar[str] = "full"
    one_row: ClassVar[bool] = False

    def needs(self, layers: int) -> Needs:  # noqa: ARG002
        """Nothing."""
        return Needs()

    def start(self, layout: Layout, request: Request) -> FullPlanner:  # noqa: ARG002
        """The same plan for every batch."""
        return FullPlanner(Plan(tuple(Pass(stage) for stage in range(len(layout.stages)))))


@dataclass(frozen=True)
class FullPlanner:
    """Always the same plan."""

    all: Plan

    def plan(self, step: int, signals: Signals) -> Plan:  # noqa: ARG002
        """Every stage."""
        return self.all
