"""What a round of drafts and verification costs, from measured times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.layout import Layout

GUESS = 0.05
"""What another position adds to the time for one, as a fraction, before that was measured."""


class Costs:
    """Seconds of rounds; in layers, with a head as dear as one, before anything was measured.

    A run over p positions takes the time for one and a fraction of it for each other. What was not
    measured of a stage or the head is taken from those where it was, by their layers.

    Args:
        clock: of the session, None for nothing measured.
        layout: of the bundle.
        most: positions of a run, at most; longer ones (prompts) say nothing about steps.
    """

    def __init__(self, clock: Clock | None, layout: Layout, most: int) -> None:
        layers = np.array([*(last - first for first, last in layout.stages), 1], np.float64)
        single = np.full(len(layers), np.nan)
        several: list[list[tuple[int, float]]] = [[] for _ in layers]
        for (*what, positions), seconds in (clock.seconds if clock is not None else {}).items():
            part = _part(what, len(layout.stages))
            if part is None or not isinstance(positions, int):
                continue
            if positions == 1:
                single[part] = seconds
            elif positions <= most:
                several[part].append((positions, seconds))
        known = ~np.isnan(single)
        unit = float(np.median(single[known] / layers[known])) if known.any() else 1.0
        self._single = np.where(known, single, layers * unit)
        more = [
            [(s / one - 1) / (p - 1) for p, s in points if one > 0]
            for points, one in zip(several, self._single, strict=True)
        ]
        everywhere = [fraction for part in more for fraction in part]
        typical = float(np.median(everywhere)) if known.any() and everywhere else GUESS
        fractions = [float(np.median(part)) if part and known.any() else typical for part in more]
        self._other = self._single * np.maximum(fractions, 0)

    def rounds(self, below: int, drafts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Time of rounds of so many drafts from the first ``below`` stages, and verification.

        Args:
            below: stages below the exit.
            drafts: int64 ``[n]``, numbers of drafts; 0 is full depth alone.
        """
        shallow = self._single[:below].sum()
        found: NDArray[np.float64] = (
            drafts * (shallow + self._single[-1])
            + self._single.sum()
            + drafts * self._other[below:].sum()
        )
        return found

    def feed(self, below: int) -> float:
        """Time of one more draft's way: alone below the exit, with the others above."""
        return float(self._single[:below].sum() + self._other[below:].sum())

    @property
    def head(self) -> float:
        """Time of the head for one position."""
        return float(self._single[-1])


def _part(what: list[object], stages: int) -> int | None:
    """Index of what was measured: stages in order, then the head; None for anything else."""
    if what == ["head"]:
        return stages
    if len(what) == 3 and what[0] == "stage" and what[2] == "full" and isinstance(what[1], int):
        return what[1]
    return None
