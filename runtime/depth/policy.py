"""What a depth policy is: a pure function from a step to a plan. It owns no sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Signals = Mapping[str, Any]
"""What the last step showed (confidences, router scores); empty where no policy asked."""


@dataclass(frozen=True)
class Plan:
    """The stages to run in order, by index; the head always follows the last."""

    stages: tuple[int, ...]


class Policy(Protocol):
    """Decides, step by step, how deep to go."""

    name: str

    def plan(self, step: int, signals: Signals) -> Plan:
        """The plan of a step; step 0 is the prefill."""
