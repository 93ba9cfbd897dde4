"""Memory for the hidden states that pass from stage to stage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.session import empty

SHORT = 32
"""Passes of up to so many positions share one piece of memory, whatever their length; that of
longer ones (prompts) is given back when the next step begins."""


class HiddenMemory:
    """One slot before each stage and one behind the last, for float32 ``[rows, T', width]``.

    Slot 0, before the first stage, which takes tokens, is free for other uses.

    Args:
        rows: sequences decoded side by side.
        width: channels of a hidden state.
    """

    def __init__(self, rows: int, width: int) -> None:
        self._rows, self._width = rows, width
        self._flat: dict[int, NDArray[np.float32]] = {}
        self._views: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._long: set[tuple[int, int]] = set()

    def view(self, slot: int, positions: int) -> NDArray[np.float32]:
        """A slot's memory for so many positions; the same array for the same arguments."""
        view = self._views.get((slot, positions))
        if view is None:
            shape = (self._rows, positions, self._width)
            if positions > SHORT:
                view = empty(*shape)
                self._long.add((slot, positions))
            else:
                if slot not in self._flat:
                    self._flat[slot] = empty(self._rows * SHORT * self._width)
                view = self._flat[slot][: self._rows * positions * self._width].reshape(shape)
            self._views[slot, positions] = view
        return view

    def release(self, positions: int) -> bool:
        """Give back long memory for any other number of positions; says whether there was some."""
        if not self._long:
            return False
        given = {key for key in self._long if key[1] != positions}
        for key in given:
            del self._views[key]
        self._long -= given
        return bool(given)
