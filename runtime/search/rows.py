"""Searches in which every row goes its own way: greedy decoding and sampling."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import EdgedecError, InputError
from edgedec.runtime.processors import (
    ABSENT,
    ForcedTokens,
    Processor,
    Scores,
    Tokens,
    still_needed,
)
from edgedec.runtime.search.history import History
from edgedec.runtime.search.protocol import Advance, Hypothesis


class Picker(Protocol):
    """Chooses a token of each row from its scores."""

    @property
    def needs_scores(self) -> bool:
        """False: the index of the highest logit is all it looks at."""

    def __call__(self, scores: Scores, wanted: NDArray[np.bool_]) -> Tokens:
        """Return tokens `int64 [rows]`; those of rows that are not `wanted` mean nothing.

        `scores` are `float32 [rows, V]` and are left unchanged.
        """

    def copy(self) -> Picker:
        """A picker that will choose the same tokens from the same scores."""


class RowSearch:
    """Greedy decoding or sampling of a batch: one decoder row for each input.

    A row that has ended is fed padding until all have; what happens to a row never depends on the
    others.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        *,
        pick: Picker,
        processors: Sequence[Processor],
        forced: ForcedTokens | None,
        eos: Sequence[int],
        pad: int,
    ) -> None:
        self.rows = len(prompts)
        self._pick = pick
        self._processors = list(processors)
        self._forced = forced
        self._eos = frozenset(eos)
        self._pad = pad
        self._limits = list(limits)
        self._history = History(prompts)
        # Plain lists and sets: rows are few, and NumPy's calls would cost more than a short step.
        self._live = list(range(self.rows))
        self._stopped = [False] * self.rows
        self._lengths = [0] * self.rows
        self._finished = np.zeros(self.rows, np.bool_)
        self._scratch: Scores | None = None

    @property
    def needs_logits(self) -> bool:
        """Whether a rule or the choice itself looks at all scores, now or later."""
        return self._pick.needs_scores or bool(self._processors)

    @property
    def room(self) -> int:
        """How many tokens the first row may still generate."""
        return 0 if self._finished[0] else self._limits[0] - self._lengths[0]

    def copy(self) -> RowSearch:
        """A search that will choose as this one would, and leaves this one as it is."""
        other = copy.copy(self)
        other._pick = self._pick.copy()
        other._history = self._history.copy()
        other._live = list(self._live)
        other._stopped = list(self._stopped)
        other._lengths = list(self._lengths)
        return other

    def advance(self, next_token: Tokens | None, logits: Scores | None) -> Advance:
        """Choose the next token of each row; `Search.advance` says more."""
        if not self._live:
            raise ValueError("the search is over")
        if logits is None and (next_token is None or self.needs_logits):
            raise ValueError("this search needs logits")
        step = self._history.steps
        tokens = self._choose(next_token, logits, step)
        if len(self._live) < self.rows:
            tokens = np.where(self._finished, self._pad, tokens)
        self._history.append(tokens)
        self._processors = still_needed(self._processors, step + 1)
        self._end_rows(tokens.tolist(), step + 1)
        return Advance(tokens, None, self._finished, not self._live)

    def _end_rows(self, tokens: list[int], length: int) -> None:
        """Note which rows go on after their token, their `length`-th."""
        ended = []
        for row in self._live:
            self._lengths[row] = length
            self._stopped[row] = tokens[row] in self._eos
            if self._stopped[row] or length >= self._limits[row]:
                ended.append(row)
        if ended:
            self._finished = self._finished.copy()  # the caller may still hold the last one
            self._finished[ended] = True
            self._live = [row for row in self._live if not self._finished[row]]

    def results(self) -> list[Hypothesis]:
        """Return what each row has generated."""
        return [
            Hypothesis(
                self._history.generated(row, self._lengths[row]),
                None,
                "stop" if self._stopped[row] else "length",
            )
            for row in range(self.rows)
        ]

    def _choose(self, next_token: Tokens | None, logits: Scores | None, step: int) -> Tokens:
        forced = None if self._forced is None else self._forced.at(step)
        running = ~self._finished
        free = running if forced is None else running & (forced == ABSENT)
        if next_token is not None and not self.needs_logits:
            chosen = next_token.copy()  # the next decoder run overwrites it
        elif forced is not None and not free.any():
            return forced
        else:
            assert logits is not None
            chosen = self._pick(self._edited(logits, step), free)
        return chosen if forced is None else np.where(free, chosen, forced)

    def _edited(self, logits: Scores, step: int) -> Scores:
        if not self._processors:
            return logits
        if self._scratch is None:
            self._scratch = np.empty(logits.shape, np.float32)
        np.copyto(self._scratch, logits)
        for processor in self._processors:
            processor(self._scratch, self._history.tokens, step)
        return self._scratch


def check_choice(scores: NDArray[np.floating]) -> None:
    """Check the scores, of any shape, of chosen tokens: each is finite.

    Raises:
        EdgedecError: one is NaN or +inf.
        InputError: one is -inf: there was nothing else to choose.
    """
    if np.isneginf(scores).any():
        raise InputError(
            "The options rule out every token; relax suppress_tokens, bad_words_ids, "
            "no_repeat_ngram_size or the minimum length."
        )
    check_model(scores)


def check_model(scores: NDArray[np.floating]) -> None:
    """Check scores of any shape that come from the model: each is finite.

    Raises:
        EdgedecError: one is not.
    """
    if not np.isfinite(scores).all():
        raise EdgedecError(
            "The model's scores of the next token are not finite numbers; a half-precision bundle "
            "may have overflowed: export the checkpoint with --dtype fp32."
        )
