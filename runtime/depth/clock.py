"""Measured time of stages and head, for policies that weigh one against the other."""

from __future__ import annotations

from dataclasses import dataclass, field

WEIGHT = 0.1
"""Of the newest measurement in the running mean."""


@dataclass
class Clock:
    """Running means of seconds, by what ran and for how many positions.

    Keys are ``("stage", index, variant)`` and ``("head",)``, with the number of positions.
    """

    seconds: dict[tuple[object, ...], float] = field(default_factory=dict)

    def add(self, what: tuple[object, ...], positions: int, seconds: float) -> None:
        """Note one measurement."""
        key = (*what, positions)
        old = self.seconds.get(key)
        self.seconds[key] = seconds if old is None else old + WEIGHT * (seconds - old)

    def get(self, what: tuple[object, ...], positions: int) -> float | None:
        """Seconds of one run over so many positions; None where that was never measured."""
        return self.seconds.get((*what, positions))
