"""Full depth: every stage at every step."""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.runtime.depth.policy import Plan, Signals


@dataclass(frozen=True)
class Full:
    """Run all ``stages`` of the decoder, whatever the step."""

    stages: int
    name: str = "full"

    def plan(self, step: int, signals: Signals) -> Plan:  # noqa: ARG002
        """Every stage."""
        return Plan(tuple(range(self.stages)))
