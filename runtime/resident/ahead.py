"""Greedy steps that a device has made ahead of what was fed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 8
"""Steps in one launch: what a text that ends may waste, and what a stream waits for."""


class Ahead:
    """Choices that hold as long as what is fed equals them.

    Launches begin with one step and double while nothing contradicts them.
    """

    def __init__(self) -> None:
        self._window = 1
        self._choices: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self._at = 0

    def serve(
        self, fed: NDArray[np.int64], live: NDArray[np.bool_] | None
    ) -> NDArray[np.int64] | None:
        """What follows ``fed``, if that was foreseen.

        Args:
            fed: a token ``[rows]`` of each row.
            live: rows whose tokens count, all by default.

        Returns:
            The next tokens ``[rows]``; None where the device must run.
        """
        if self._at + 1 >= len(self._choices):
            return None
        same = fed == self._choices[self._at]
        if not (same if live is None else same | ~live).all():
            self.clear()
            return None
        self._at += 1
        found: NDArray[np.int64] = self._choices[self._at]
        return found

    def steps(self, room: int) -> int:
        """How many steps to launch, where there is room for so many positions; at least 1."""
        steps = self._window
        while steps > max(room, 1):
            steps //= 2
        return steps

    def keep(self, choices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Note the choices ``[steps, rows]`` of a launch; returns those of its first step."""
        self._choices, self._at = choices.copy(), 0
        self._window = min(2 * self._window, MOST)
        first: NDArray[np.int64] = self._choices[0]
        return first

    def clear(self) -> None:
        """Forget what was foreseen, and begin with one step again."""
        self._choices, self._at, self._window = self._choices[:0], 0, 1
