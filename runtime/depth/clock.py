"""Measured time of stages and head, for policies that weigh one against the other."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

RISE, FALL = 0.1, 0.5
"""Of the newest measurement in the running mean. A run can only be disturbed to take longer, and
the first one of a shape always is, so a shorter time says more."""


@dataclass
class Clock:
    """Running means of seconds, by what ran and for how many positions.

    Attributes:
        seconds: keys are ``("stage", index, variant)`` and ``("head",)``, with the number of
            positions.
        learned: policy -> what its planners have learned of this model and want to find again
            when the next text begins.
    """

    seconds: dict[tuple[object, ...], float] = field(default_factory=dict)
    learned: dict[Hashable, Any] = field(default_factory=dict)

    def add(self, what: tuple[object, ...], positions: int, seconds: float) -> None:
        """Note one measurement."""
        self.note((*what, positions), seconds)

    def note(self, key: tuple[object, ...], seconds: float) -> None:
        """The same, by a key that ends with the number of positions."""
        old = self.seconds.get(key)
        if old is None:
            self.seconds[key] = seconds
        else:
            self.seconds[key] = old + (FALL if seconds < old else RISE) * (seconds - old)

    def get(self, what: tuple[object, ...], positions: int) -> float | None:
        """Seconds of one run over so many positions; None where that was never measured."""
        return self.seconds.get((*what, positions))
