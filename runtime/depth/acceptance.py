"""How often an exit's drafts held, by how probable they were."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

EDGES = (0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Drafts are counted apart between these probabilities: what they mean differs from exit to exit,
and from model to model."""
PRIOR = 1.0
"""Of a draft that held and of one that did not, before anything was seen: nothing is certain."""
BORROWED = 5.0
"""An exit's drafts of one kind count as many as these of all its kinds, which are better known."""


class Acceptance:
    """Decayed counts of drafts.

    Args:
        exits: how many exits there are.
        omega: how much an older round counts beside the next one.

    Attributes:
        right: float64 ``[exits, len(EDGES) + 1]``, drafts that held,
        wrong: and drafts that did not.
    """

    def __init__(self, exits: int, omega: float) -> None:
        self.omega = omega
        self.right = np.zeros((exits, len(EDGES) + 1))
        self.wrong = np.zeros((exits, len(EDGES) + 1))

    def add(
        self,
        held: NDArray[np.bool_],
        probabilities: NDArray[np.float32],
        exits: slice = slice(None),
    ) -> None:
        """Count a round.

        Args:
            held: ``[exits, positions]``, which drafts were right.
            probabilities: of the same shape.
            exits: the exits that these are.
        """
        rows = np.broadcast_to(np.arange(len(held))[:, None], held.shape)
        kinds = np.searchsorted(EDGES, probabilities)
        for total, new in ((self.right, held), (self.wrong, ~held)):
            total[exits] *= self.omega
            np.add.at(total[exits], (rows, kinds), new)

    def mean(self) -> NDArray[np.float64]:
        """Estimated probability that an exit's draft holds, float64 ``[exits]``."""
        right, wrong = self.right.sum(axis=1), self.wrong.sum(axis=1)
        found: NDArray[np.float64] = (right + PRIOR) / (right + wrong + 2 * PRIOR)
        return found

    def by_kind(self, place: int) -> list[float]:
        """Of one exit, estimated for drafts of every kind."""
        right, wrong = self.right[place], self.wrong[place]
        found: list[float] = (
            (right + BORROWED * self.mean()[place]) / (right + wrong + BORROWED)
        ).tolist()
        return found


def kind_of(probability: float) -> int:
    """Between which of `EDGES` a draft's probability lies."""
    return bisect_left(EDGES, probability)
