"""Token sequences to calibrate on, picked from all over a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgedec.quantize.text.text_files import TextPair

Tokenize = Callable[[str], Sequence[int]]
WINDOW = 192
"""Tokens of a decoder-only model's sample."""
EXCERPT = 2048
"""About so many characters are read at a place, so that a few windows come of it."""
LONGEST = 512
"""Tokens of a sample's longer side; what attention computes grows with their square."""


@dataclass(frozen=True)
class Sample:
    """One sequence.

    Attributes:
        source: what an encoder reads; None for a decoder-only model.
        target: what the decoder should say, or a piece of text; None where that is not known.
    """

    source: tuple[int, ...] | None
    target: tuple[int, ...] | None

    @property
    def tokens(self) -> int:
        """Tokens of its longer side."""
        return max(len(self.source or ()), len(self.target or ()))


def pick_samples(
    pairs: Sequence[TextPair],
    tokenize: Tokenize,
    *,
    encoder_decoder: bool,
    tokens: int,
    longest: int = LONGEST,
    seed: int = 0,
) -> list[Sample]:
    """Pick samples from all over a text; the same every time.

    An encoder-decoder's samples are the pairs; those without a target stay without. For a
    decoder-only model all is joined to one text, and samples are windows of it.

    Args:
        pairs: the text.
        tokenize: text -> token ids, with the special tokens that the model expects.
        encoder_decoder: whether the model has an encoder.
        tokens: at most so many are picked, counted on the longer side of each sample.
        longest: samples with more tokens on a side are left out; windows have no more.
        seed: of the choice.
    """
    parts: Sequence[TextPair | str] = pairs if encoder_decoder else _excerpts(pairs)
    window = min(WINDOW, longest, tokens)
    picked: list[tuple[int, Sample]] = []
    left = tokens
    for index in np.random.default_rng(seed).permutation(len(parts)).tolist():
        part = parts[index]
        samples = (
            _windows(tokenize(part), window) if isinstance(part, str) else [_pair(part, tokenize)]
        )
        for sample in samples:
            if not 0 < sample.tokens <= longest:
                continue
            left -= sample.tokens
            if left >= 0:
                picked.append((index, sample))
        if left <= 0:
            break
    return [sample for _, sample in sorted(picked, key=lambda entry: entry[0])]


def _pair(pair: TextPair, tokenize: Tokenize) -> Sample:
    target = None if pair.target is None else tuple(tokenize(pair.target))
    return Sample(tuple(tokenize(pair.source)), target)


def _excerpts(pairs: Sequence[TextPair]) -> list[str]:
    """The whole text in pieces, cut at the ends of words where there are some."""
    text = "\n".join(p.source if p.target is None else f"{p.source}\n{p.target}" for p in pairs)
    excerpts = []
    start = 0
    while start < len(text):
        end = start + EXCERPT
        if end < len(text):
            space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = space + 1 if space > start else end
        excerpts.append(text[start:end])
        start = end
    return excerpts


def _windows(ids: Sequence[int], window: int) -> list[Sample]:
    """Windows one after another; the first token of each is not predicted, so one is too few."""
    cut = [tuple(ids[start : start + window]) for start in range(0, len(ids), window)]
    return [Sample(None, part) for part in cut if len(part) > 1]
