"""Beam search, with the stopping rules and the scores of transformers 5."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.processors import (
    ABSENT,
    ForcedTokens,
    Processor,
    Scores,
    Tokens,
    still_needed,
)
from edgedec.runtime.search.history import History
from edgedec.runtime.search.protocol import Advance, FinishReason, Hypothesis
from edgedec.runtime.search.rows import check_choice, check_model
from edgedec.runtime.search.topk import top_k

_LOWEST = -1.0e9
"""The score of a beam that does not exist: below any real one, and still a number."""


@dataclass(frozen=True)
class _Finished:
    tokens: list[int]
    score: float
    reason: FinishReason


class BeamSearch:
    """Keeps the `beams` most probable continuations of each input at every step.

    One step extends every running beam by every token, keeps the best `beams * (1 + eos tokens)`
    extensions of each input, and splits them: those that end compete, with their score divided by
    length ** length_penalty, for one of `beams` finished places (if they are among the best
    `beams`); the best that do not end run on. An input is over when it cannot improve or when
    `early_stopping` says so.
    """

    needs_logits = True

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        *,
        beams: int,
        length_penalty: float,
        early_stopping: bool | Literal["never"],
        renormalize: bool,
        processors: Sequence[Processor],
        forced: ForcedTokens | None,
        eos: Sequence[int],
        pad: int,
    ) -> None:
        """Start a search; `processors` and `forced` are for `len(prompts) * beams` rows."""
        batch = len(prompts)
        self.rows = batch * beams
        self._batch = batch
        self._beams = beams
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping
        self._renormalize = renormalize
        self._processors = list(processors)
        self._forced = forced
        self._eos = np.array(eos, np.int64)
        self._pad = pad
        self._limits = np.array(limits, np.int64)
        self._history = History([prompt for prompt in prompts for _ in range(beams)])
        # All beams of an input start equal: only the first counts, or each token would win thrice.
        self._running = np.full((batch, beams), _LOWEST, np.float32)
        self._running[:, 0] = 0
        self._places: list[list[_Finished]] = [[] for _ in range(batch)]
        self._worst = np.full(batch, _LOWEST)
        self._done = np.zeros(batch, np.bool_)
        self._first_row = np.arange(batch, dtype=np.int64)[:, None] * beams
        self._totals: Scores | None = None
        self._exponentials: Scores | None = None

    def advance(self, next_token: Tokens | None, logits: Scores | None) -> Advance:  # noqa: ARG002
        """Extend the beams by one token; `Search.advance` says more."""
        if self._done.all():
            raise ValueError("the search is over")
        if logits is None:
            raise ValueError("this search needs logits")
        step = self._history.steps
        if len(logits) != self.rows and step == 0:
            logits = np.repeat(logits, self._beams, axis=0)
        scores, beams, tokens = self._best_extensions(logits, step)

        at_limit = step + 1 >= self._limits
        ends = (tokens[:, :, None] == self._eos).any(axis=2) | at_limit[:, None]
        self._finish(scores, beams, tokens, ends)
        parents, chosen = self._run_on(scores, beams, tokens, ends)
        self._processors = still_needed(self._processors, step + 1)
        self._done = self._done | at_limit | self._cannot_improve(step + 1)

        unchanged = bool((parents == np.arange(self.rows)).all())
        return Advance(chosen, None if unchanged else parents, self._done, bool(self._done.all()))

    def results(self) -> list[Hypothesis]:
        """Return the best finished beam of each input, the best running one where there is none."""
        results = []
        for item in range(self._batch):
            if self._places[item]:
                best = self._places[item][0]
                results.append(Hypothesis(best.tokens, best.score, best.reason))
            else:
                tokens = self._history.generated(item * self._beams)
                score = float(self._running[item, 0]) / self._divisor(max(1, len(tokens)))
                results.append(Hypothesis(tokens, score, "length"))
        return results

    def _best_extensions(
        self, logits: Scores, step: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Return scores, beams (of their input) and tokens of the best extensions `[batch, k]`."""
        vocab = logits.shape[1]
        check_model(logits.max(axis=1))
        totals = self._log_probabilities(logits)
        for processor in self._processors:
            processor(totals, self._history.tokens, step)
        if self._forced is not None:
            forced = self._forced.at(step)
            rows = np.flatnonzero(forced != ABSENT)
            totals[rows] = -np.inf
            totals[rows, forced[rows]] = 0
        if self._renormalize:
            totals = self._log_probabilities(totals)
        totals += self._running.reshape(-1, 1)
        # of these, at most `beams` for each way to end can end: `beams` are sure to run on
        count = self._beams * max(2, 1 + len(self._eos))
        totals = totals.reshape(self._batch, self._beams * vocab)
        scores, index = top_k(totals, min(count, totals.shape[1]))
        check_choice(scores[~self._done, 0])
        return scores, index // vocab, index % vocab

    def _log_probabilities(self, logits: Scores) -> Scores:
        """Return `logits - log(sum(exp(logits)))` of each row, in an array of our own.

        A row in which every token is ruled out stays as it is.
        """
        if self._totals is None or self._exponentials is None:
            self._totals = np.empty(logits.shape, np.float32)
            self._exponentials = np.empty(logits.shape, np.float32)
        totals, exponentials = self._totals, self._exponentials
        highest = logits.max(axis=1, keepdims=True)
        np.subtract(logits, np.where(np.isneginf(highest), 0, highest), out=totals)
        np.exp(totals, out=exponentials)
        sums = exponentials.sum(axis=1, keepdims=True)
        totals -= np.log(np.where(sums == 0, 1, sums))
        return totals

    def _finish(
        self,
        scores: NDArray[np.float32],
        beams: NDArray[np.int64],
        tokens: NDArray[np.int64],
        ends: NDArray[np.bool_],
    ) -> None:
        """Let extensions that end compete for the finished places of their input."""
        length = self._history.steps + 1
        divisor = self._divisor(length)
        ending = ends[:, : self._beams] & ~self._done[:, None]
        for item, place in zip(*np.nonzero(ending), strict=True):
            score = float(np.float32(scores[item, place] / divisor))
            if score <= self._worst[item]:
                continue
            token = int(tokens[item, place])
            past = self._history.generated(int(item * self._beams + beams[item, place]))
            reason: FinishReason = "stop" if token in self._eos else "length"
            places = self._places[item]
            places.append(_Finished([*past, token], score, reason))
            places.sort(key=lambda finished: -finished.score)  # stable: the older one of equals
            del places[self._beams :]
            if len(places) == self._beams:
                self._worst[item] = places[-1].score

    def _run_on(
        self,
        scores: NDArray[np.float32],
        beams: NDArray[np.int64],
        tokens: NDArray[np.int64],
        ends: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Continue the best extensions that do not end; return parents and tokens `[rows]`."""
        kept = scores + ends * np.float32(_LOWEST)
        order = np.argsort(-kept, axis=1, kind="stable")[:, : self._beams]
        parents = np.take_along_axis(beams, order, axis=1)
        chosen = np.take_along_axis(tokens, order, axis=1)
        still = ~self._done[:, None]
        parents = np.where(still, parents, np.arange(self._beams, dtype=np.int64)) + self._first_row
        chosen = np.where(still, chosen, self._pad)
        self._running = np.where(still, np.take_along_axis(kept, order, axis=1), self._running)
        flat_parents, flat_chosen = parents.reshape(-1), chosen.reshape(-1)
        self._history.reorder(flat_parents)
        self._history.append(flat_chosen)
        return flat_parents, flat_chosen

    def _cannot_improve(self, length: int) -> NDArray[np.bool_]:
        """Return `bool [batch]`: whether the search of an input may stop after `length` tokens."""
        lengths = np.full(self._batch, length)
        if self._early_stopping == "never" and self._length_penalty > 0:
            lengths = self._limits
        hoped = self._running[:, 0] / lengths.astype(np.float64) ** self._length_penalty
        over = hoped.astype(np.float32) <= self._worst
        if self._early_stopping is True:
            over |= np.array([len(places) == self._beams for places in self._places])
        return over

    def _divisor(self, length: int) -> float:
        return math.pow(length, self._length_penalty)
