"""Feed passages to a model token by token, keep what it would have said, and compare that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.export.passages import Passage
from edgedec.runtime.generator import Generator
from edgedec.runtime.prompt import feed_prompts
from edgedec.runtime.steps import Steps

PIECE = 512
"""Prompt tokens that are fed at a time."""
NO_NUMBER = 1e6
"""The error of what is infinite or no number."""

Tokens = NDArray[np.int64]
Logits = NDArray[np.float32]
Told = Callable[[float], None]
Start = Callable[[tuple[int, ...] | None], Steps]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model said.

    Attributes:
        tokens: of each passage, those that it chose, int64.
        logits: ``[vocab]`` for each of the first of these tokens, as many as were asked for.
    """

    tokens: list[Tokens]
    logits: list[Logits]


def predictions(
    start: Start, passages: Sequence[Passage], told: Told, *, scored: int = 0
) -> Predicted:
    """What a model chooses when it is fed passages: as many tokens as are written in each.

    Args:
        start: begins to decode one row; is given its source, None without an encoder.
        passages: what it is fed, token by token but for the prompts.
        told: the fraction that is done, after every token.
        scored: tokens of which the logits are kept.
    """
    done, every = 0, sum(len(passage.written) for passage in passages)
    found, logits = [], []
    for passage in passages:
        decoding = start(passage.source)
        chosen: list[int] = []
        for place in range(len(passage.written)):
            want = done < scored
            if place == 0:
                prompts = [passage.prompt]
                output = feed_prompts(decoding, prompts, pad=0, piece=PIECE, want_logits=want)
            else:
                fed = np.array([[passage.written[place - 1]]], np.int64)
                output = decoding.step(fed, want_logits=want)
            if want and output.logits is not None:
                logits.append(output.logits[0].copy())
            chosen.append(int(output.next_token[0]))
            done += 1
            told(done / every)
        found.append(np.array(chosen, np.int64))
    return Predicted(found, logits)


def start_of(generator: Generator) -> Start:
    """Begin to decode with a generator."""

    def start(source: tuple[int, ...] | None) -> Steps:
        return generator.start_decoding(None if source is None else [list(source)], 1)

    return start


def equal(found: Sequence[Tokens], wanted: Sequence[Tokens]) -> float:
    """The share of equal tokens, of as many as were found."""
    tokens = np.concatenate(found)
    return float(np.mean(tokens == np.concatenate(wanted)[: len(tokens)]))


def relative_error(found: Sequence[Logits], wanted: Sequence[Logits]) -> float | None:
    """The greatest difference of logits, each relative to the range of what was wanted there.

    Args:
        found: ``[vocab]`` for every token.
        wanted: likewise.

    Returns:
        None without logits; `NO_NUMBER` where one is infinite or no number.
    """
    worst = None
    for a, b in zip(found, wanted, strict=True):
        span = max(float(np.ptp(b)), float(np.finfo(np.float32).tiny))
        error = float(np.max(np.abs(a.astype(np.float64) - b))) / span
        error = min(error, NO_NUMBER) if np.isfinite(error) else NO_NUMBER
        worst = error if worst is None else max(worst, error)
    return worst
