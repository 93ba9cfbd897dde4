"""Greedy decoding: always the most probable token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.processors import Scores, Tokens
from edgedec.runtime.search.rows import check_choice


class Greedy:
    """Picks the highest score, the lowest id among equals."""

    needs_scores = False

    def __call__(self, scores: Scores, wanted: NDArray[np.bool_]) -> Tokens:
        """Return tokens `int64 [rows]` for scores `float32 [rows, V]`."""
        tokens: Tokens = scores.argmax(axis=1).astype(np.int64)
        check_choice(scores[wanted, tokens[wanted]])
        return tokens

    def copy(self) -> Greedy:
        """Itself: it remembers nothing."""
        return self
