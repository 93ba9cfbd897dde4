"""How often an exit's drafts held, by how probable they were."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

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

    def add(self, held: NDArray[np.bool_], probabilities: NDArray[np.float32]) -> None:
        """Count a round of all exits.

        Args:
            held: ``[exits, positions]``, which drafts were right.
            probabilities: of the same shape.
        """
        rows = np.arange(len(held))[:, None]
        kinds = np.searchsorted(EDGES, probabilities)
        self.right *= self.omega
        self.wrong *= self.omega
        np.add.at(self.right, (rows, kinds), held)
        np.add.at(self.wrong, (rows, kinds), ~held)

    def add_one(self, place: int, probabilities: Sequence[float], accepted: int) -> None:
        """Count a round of the exit that drafted: the first ``accepted`` were right, the next not.

        Without arrays, as it is done in every round.
        """
        self.right[place] *= self.omega
        self.wrong[place] *= self.omega
        for index, probability in enumerate(probabilities[: accepted + 1]):
            total = self.right if index < accepted else self.wrong
            total[place, kind_of(probability)] += 1

    def mean(self) -> NDArray[np.float64]:
        """Estimated probability that an exit's draft holds, float64 ``[exits]``."""
        right, wrong = self.right.sum(axis=1), self.wrong.sum(axis=1)
        found: NDArray[np.float64] = (right + PRIOR) / (right + wrong + 2 * PRIOR)
        return found

    def of(self, place: int) -> tuple[float, list[float]]:
        """The same for one exit, and for its drafts of every kind."""
        right, wrong = self.right[place].tolist(), self.wrong[place].tolist()
        all_right = sum(right)
        mean = (all_right + PRIOR) / (all_right + sum(wrong) + 2 * PRIOR)
        borrowed = BORROWED * mean
        return mean, [
            (r + borrowed) / (r + w + BORROWED) for r, w in zip(right, wrong, strict=True)
        ]


def kind_of(probability: float) -> int:
    """Between which of `EDGES` a draft's probability lies."""
    return bisect_left(EDGES, probability)
