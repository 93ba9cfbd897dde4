"""Rules about which tokens may come next, each a small object that edits scores in place.

A rule gets scores `float32 [rows, V]` (logits, or log-probabilities in a beam search), the tokens
so far `int64 [rows, length]` (prompt and generated, aligned at the right, `ABSENT` before the start
of a shorter row) and the number of steps done. It works in place because at V = 32,000 copies would
cost more than the rules. Their order and their meaning are those of transformers 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.runtime.generation import GenerationConfig

Scores = NDArray[np.float32]
Tokens = NDArray[np.int64]

ABSENT = -1
"""Stands before the first token of a row that is shorter than its neighbours."""


class Processor(Protocol):
    """One rule about the next token."""

    @property
    def until(self) -> int | None:
        """The rule does nothing from this step on; None: it always matters."""

    def __call__(self, scores: Scores, tokens: Tokens, step: int) -> None:
        """Edit the scores of the next token in place; `step` tokens were generated before it."""


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens of the prompt and the output so far less likely (arXiv:1909.05858, 4.1)."""

    penalty: float
    until: int | None = None

    def __call__(self, scores: Scores, tokens: Tokens, step: int) -> None:  # noqa: ARG002
        """Divide positive scores of tokens that occurred by the penalty, multiply negative ones."""
        rows, places = np.nonzero((tokens >= 0) & (tokens < scores.shape[1]))
        seen = tokens[rows, places]
        score = scores[rows, seen]
        scores[rows, seen] = np.where(score < 0, score * self.penalty, score / self.penalty)


@dataclass(frozen=True)
class NoRepeatNgram:
    """Rules out every token that would complete a sequence of `size` tokens for a second time."""

    size: int
    until: int | None = None

    def __call__(self, scores: Scores, tokens: Tokens, step: int) -> None:  # noqa: ARG002
        """Compare the last size - 1 tokens with all windows of the row's own past."""
        length = tokens.shape[1]
        if length < self.size:
            return
        windows = np.lib.stride_tricks.sliding_window_view(tokens, self.size, axis=1)
        # A suffix that starts with ABSENT occurs once only, at its own place, which has no
        # successor: short rows need no special care.
        suffix = tokens[:, None, length - self.size + 1 :]
        rows, places = np.nonzero((windows[:, :, :-1] == suffix).all(axis=2))
        banned = windows[rows, places, -1]
        known = (banned >= 0) & (banned < scores.shape[1])
        scores[rows[known], banned[known]] = -np.inf


@dataclass(frozen=True)
class BadWords:
    """Rules out the last token of each forbidden sequence where the others precede it."""

    single: Tokens
    longer: tuple[Tokens, ...]
    until: int | None = None

    def __call__(self, scores: Scores, tokens: Tokens, step: int) -> None:  # noqa: ARG002
        """Rule out single tokens everywhere, longer sequences where they are about to end."""
        scores[:, self.single] = -np.inf
        for word in self.longer:
            before = len(word) - 1
            if before <= tokens.shape[1]:
                rows = (tokens[:, -before:] == word[:-1]).all(axis=1)
                scores[rows, word[-1]] = -np.inf


@dataclass(frozen=True)
class Suppress:
    """Rules out tokens everywhere."""

    ids: Tokens
    until: int | None = None

    def __call__(self, scores: Scores, tokens: Tokens, step: int) -> None:  # noqa: ARG002
        """Rule them out."""
        scores[:, self.ids] = -np.inf


@dataclass(frozen=True)
class SuppressBefore:
    """Rules out tokens before a step of each row: end-of-sequence tokens of too short a row."""

    ids: Tokens
    steps: NDArray[np.int64]
    """`[rows]`"""

    @property
    def until(self) -> int | None:
        """All rows are past it."""
        return int(self.steps.max())

    def __call__(self, scores: Scores, tokens: Tokens, step: int) -> None:  # noqa: ARG002
        """Rule them out in the rows that are not there yet."""
        rows = np.flatnonzero(step < self.steps)
        scores[np.ix_(rows, self.ids)] = -np.inf


@dataclass(frozen=True)
class SuppressAt:
    """Rules out tokens at one step of each row: the first that is not forced."""

    ids: Tokens
    steps: NDArray[np.int64]
    """`[rows]`"""

    @property
    def until(self) -> int | None:
        """All rows are past it."""
        return int(self.steps.max()) + 1

    def __call__(self, scores: Scores, tokens: Tokens, step: int) -> None:  # noqa: ARG002
        """Rule them out in the rows that are just there."""
        rows = np.flatnonzero(step == self.steps)
        scores[np.ix_(rows, self.ids)] = -np.inf


@dataclass(frozen=True)
class ForcedTokens:
    """Which token a row must generate at a step whatever the model says; no scores needed."""

    first: Tokens
    """`[rows]`: the token at step 0, or `ABSENT`"""
    last: int
    """The token of the last step of a row, or `ABSENT`"""
    limits: NDArray[np.int64]
    """`[rows]`: how many steps each row has at most"""

    def at(self, step: int) -> Tokens:
        """Return the forced tokens `int64 [rows]`, `ABSENT` where the choice is free."""
        free = np.full(self.first.shape, ABSENT, np.int64)
        forced = self.first if step == 0 else free
        if self.last != ABSENT:
            forced = np.where(step == self.limits - 1, self.last, forced)
        return forced


def build_processors(
    config: GenerationConfig,
    prompt_lengths: Sequence[int],
    vocab_size: int,
) -> list[Processor]:
    """Return the rules that the configuration asks for, in the order to apply them.

    Args:
        config: The options.
        prompt_lengths: Length of the decoder prompt of each row.
        vocab_size: Ids from here on cannot be generated, so rules about them are dropped.
    """
    rules: list[Processor] = []
    if config.repetition_penalty != 1:
        rules.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        rules.append(NoRepeatNgram(config.no_repeat_ngram_size))
    words = [
        word
        for word in config.bad_words_ids
        if word[-1] < vocab_size and not (len(word) == 1 and word[0] in config.eos_token_ids)
    ]
    if words:
        single = _ids([word[0] for word in words if len(word) == 1], vocab_size)
        longer = tuple(np.array(word, np.int64) for word in words if len(word) > 1)
        rules.append(BadWords(single, longer))
    eos = _ids(config.eos_token_ids, vocab_size)
    lowest = np.array([config.minimum_steps(length) for length in prompt_lengths], np.int64)
    if eos.size and lowest.max() > 0:
        rules.append(SuppressBefore(eos, lowest))
    if config.suppress_tokens:
        rules.append(Suppress(_ids(config.suppress_tokens, vocab_size)))
    if config.begin_suppress_tokens:
        forced = config.forced_bos_token_id is not None
        begin = np.array([int(forced and length == 1) for length in prompt_lengths], np.int64)
        rules.append(SuppressAt(_ids(config.begin_suppress_tokens, vocab_size), begin))
    return rules


def build_forced(
    config: GenerationConfig,
    prompt_lengths: Sequence[int],
    limits: Sequence[int],
    vocab_size: int,
) -> ForcedTokens | None:
    """Return the forced tokens of each row, None where the configuration has none.

    Args:
        config: The options.
        prompt_lengths: Length of the decoder prompt of each row; only a prompt of one token (the
            start token of an encoder-decoder) is followed by the forced beginning.
        limits: How many tokens each row may generate.
        vocab_size: Forced ids must be below.

    Raises:
        InputError: a forced token is not in the vocabulary.
    """
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        token = getattr(config, name)
        if token is not None and token >= vocab_size:
            raise InputError(f"{name}={token} is not in the model's vocabulary of {vocab_size}.")
    bos, eos = config.forced_bos_token_id, config.forced_eos_token_id
    if bos is None and eos is None:
        return None
    first = np.array(
        [bos if bos is not None and length == 1 else ABSENT for length in prompt_lengths], np.int64
    )
    return ForcedTokens(first, ABSENT if eos is None else eos, np.array(limits, np.int64))


def still_needed(rules: Sequence[Processor], step: int) -> list[Processor]:
    """Return the rules that can still matter at this step or a later one."""
    return [rule for rule in rules if rule.until is None or step < rule.until]


def _ids(tokens: Sequence[int], vocab_size: int) -> Tokens:
    return np.array([token for token in tokens if token < vocab_size], np.int64)
