"""The user's text as token sequences: to train on, and a part that is held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgedec.errors import InputError
from edgedec.quantize.text.samples import LONGEST, Sample, pick_samples
from edgedec.quantize.text.text_files import TextPair
from edgedec.runtime.text import Tokenizer

HELD_OUT = 256
"""Most samples that are held out."""
PART = 10
"""One of so many samples is held out, where there are few."""
LOOKED_AT = 64
"""Targets that are read to see whether the tokenizer can."""
ALL = 1 << 40
"""More tokens than any text has: nothing is left out for being too much."""


@dataclass(frozen=True)
class Texts:
    """Samples in an order that does not change.

    Attributes:
        train: to learn from.
        held_out: to measure on.
    """

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


def read_texts(
    pairs: Sequence[TextPair],
    tokenizer: Tokenizer,
    *,
    encoder_decoder: bool,
    vocab_size: int,
    limit: int | None,
    eos: int | None,
    seed: int,
) -> Texts:
    """Tokenize a text and hold a part of it out.

    Targets are tokenized as sources are. Where the tokenizer cannot read most of them, because the
    model writes another alphabet than it reads, a target's words are looked up as tokens; where
    that fails too, or there are none, samples stay without a target.

    Args:
        pairs: the text.
        tokenizer: the checkpoint's.
        encoder_decoder: whether the model has an encoder.
        vocab_size: of the model.
        limit: most tokens that it can take, None for any number.
        eos: the token that ends a target.
        seed: of the choice.

    Raises:
        InputError: nothing can be used, or the tokenizer does not belong to the model.
    """
    longest = LONGEST if limit is None else min(LONGEST, limit)
    spell = _speller(pairs, tokenizer, eos) if encoder_decoder else None

    def tokenize(text: str) -> list[int]:
        return tokenizer.encode([text])[0]

    if spell is None:
        samples = pick_samples(
            pairs,
            tokenize,
            encoder_decoder=encoder_decoder,
            tokens=ALL,
            longest=longest,
            seed=seed,
        )
    else:
        sides = [(tokenize(p.source), p.target and spell(p.target)) for p in pairs]
        samples = [Sample(tuple(s), tuple(t) if t else None) for s, t in sides]
        samples = [sample for sample in samples if 0 < sample.tokens <= longest]
    for token in {t for s in samples for t in (*(s.source or ()), *(s.target or ()))}:
        if not 0 <= token < vocab_size:
            raise InputError(
                f"the tokenizer makes token {token}, which the model ({vocab_size:,} tokens) does "
                "not have: give the checkpoint its own tokenizer."
            )
    if len(samples) < 2:
        raise InputError(
            f"the text gives {len(samples)} usable samples of at most {longest} tokens: give more."
        )
    order = np.random.default_rng(seed).permutation(len(samples)).tolist()
    held = max(1, min(HELD_OUT, len(samples) // PART))
    return Texts(
        tuple(samples[i] for i in sorted(order[held:])),
        tuple(samples[i] for i in sorted(order[:held])),
    )


def with_targets(
    samples: Sequence[Sample], write: Callable[[list[tuple[int, ...]]], list[tuple[int, ...]]]
) -> tuple[Sample, ...]:
    """The samples with the targets that are missing written by the model.

    Args:
        samples: with sources.
        write: sources -> targets.
    """
    found = list(samples)
    missing = [i for i, sample in enumerate(found) if sample.target is None and sample.source]
    missing.sort(key=lambda i: (len(found[i].source or ()), i))
    for i, target in zip(missing, write([found[i].source or () for i in missing]), strict=True):
        found[i] = replace(found[i], target=target)
    return tuple(sample for sample in found if sample.target)


def _speller(
    pairs: Sequence[TextPair], tokenizer: Tokenizer, eos: int | None
) -> Callable[[str], list[int] | None] | None:
    """How to read targets that the tokenizer cannot; None where it can.

    A target whose words are not all tokens reads as None.
    """
    targets = [pair.target for pair in pairs if pair.target is not None][:LOOKED_AT]
    read = [tokenizer.decode(tokenizer.encode([target])[0]) for target in targets]
    same = [_letters(a) == _letters(b) for a, b in zip(targets, read, strict=True)]
    if 2 * sum(same) >= len(same):
        return None

    def spell(target: str) -> list[int] | None:
        ids = [tokenizer.id_of(word) for word in target.split()]
        known = [i for i in ids if i is not None]
        return [*known, *([] if eos is None else [eos])] if len(known) == len(ids) else None

    return spell


def _letters(text: str) -> str:
    return "".join(text.casefold().split())
