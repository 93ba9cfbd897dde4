"""What depth policies are measured on: a model, its inputs, and what says how good answers are."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedec.runtime.text import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

CALIBRATION_BYTES = 200_000
"""Of the language model's text; what is measured comes after them."""
PROMPT, NEW = 64, 64
"""Tokens that the language model reads, and goes on with."""

Tokens = list[int]
Rate = Callable[[Sequence[str]], float]


@dataclass(frozen=True)
class Case:
    """Inputs of a model.

    Attributes:
        name: what results call it.
        sources: token ids.
        longest: tokens of an answer, at most.
        end: whether answers end where the model says so.
        measure: what errors are called.
        rate: generated texts -> errors in percent; None where there is no task,
        truth: and then what comes after each source, for the perplexity.
        first: whether the first token counts as decoding: it does where the prompt is one token.
    """

    name: str
    sources: list[Tokens]
    longest: int
    end: bool
    measure: str
    rate: Rate | None
    truth: list[Tokens]
    first: bool


def g2p(tokenizer: Tokenizer, dictionary: Path, words: int) -> Case:
    """Words of CMUdict's test part, spread over it, and the words that are said wrong."""
    from g2p.data import load_split
    from g2p.metrics import score

    test = load_split(dictionary).test
    step = max(1.0, len(test) / words)
    picked = [list(test)[int(i * step)] for i in range(min(words, len(test)))]

    def rate(texts: Sequence[str]) -> float:
        return 100 * score(list(texts), [test[word] for word in picked]).word_error_rate

    return Case("g2p", tokenizer.encode(picked), 40, True, "WER %", rate, [], True)


def language_model(tokenizer: Tokenizer, text: Path, prompts: int) -> Case:
    """Prompts from all over a gzipped text, its first 200 KB left out; no end, as answers to time.

    What comes after each prompt in the text is for the perplexity.
    """
    held = gzip.decompress(text.read_bytes())[CALIBRATION_BYTES:].decode("utf-8", "ignore")
    (tokens,) = tokenizer.encode([held])
    step = (len(tokens) - PROMPT - NEW) // prompts
    parts = [tokens[i * step : i * step + PROMPT + NEW] for i in range(prompts)]
    sources = [part[:PROMPT] for part in parts]
    truth = [part[PROMPT:] for part in parts]
    return Case("lm", sources, NEW, False, "perplexity", None, truth, False)
