"""The tokens of all rows so far, in one array that grows by doubling."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.processors import ABSENT


class History:
    """Tokens `int64 [rows, length]`: prompts aligned at the right, then what was generated.

    Generated tokens therefore start at the same column in every row, and the ends of the rows are
    in the last column, where the rules about repetitions look.
    """

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        self._start = max(len(prompt) for prompt in prompts)
        self._length = self._start
        self._buffer = np.full((len(prompts), self._start + 64), ABSENT, np.int64)
        for row, prompt in enumerate(prompts):
            self._buffer[row, self._start - len(prompt) : self._start] = prompt

    @property
    def tokens(self) -> NDArray[np.int64]:
        """A view `[rows, length]` of prompts and what follows; `ABSENT` before short prompts."""
        return self._buffer[:, : self._length]

    @property
    def steps(self) -> int:
        """How many tokens were generated in each row."""
        return self._length - self._start

    def generated(self, row: int, steps: int | None = None) -> list[int]:
        """Return the first `steps` (None: all) generated tokens of a row."""
        end = self._length if steps is None else self._start + steps
        tokens: list[int] = self._buffer[row, self._start : end].tolist()
        return tokens

    def append(self, tokens: NDArray[np.int64]) -> None:
        """Add one token `[rows]` to each row."""
        if self._length == self._buffer.shape[1]:
            self._buffer = np.concatenate(
                [self._buffer, np.full_like(self._buffer, ABSENT)], axis=1
            )
        self._buffer[:, self._length] = tokens
        self._length += 1

    def copy(self) -> History:
        """The same tokens, in memory of its own."""
        other = copy.copy(self)
        other._buffer = self._buffer.copy()
        return other

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Replace each row by row `parents[row]` of before."""
        used = self._buffer[:, self._start : self._length]
        used[:] = used[parents]
