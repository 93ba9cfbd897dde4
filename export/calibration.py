"""The text that a model is calibrated and measured on, as tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgedec.errors import InputError
from edgedec.export.bundle import Progress
from edgedec.quantize.reporting.report import Text
from edgedec.quantize.text.batches import Batch, make_batches
from edgedec.quantize.text.samples import LONGEST, Sample, pick_samples
from edgedec.quantize.text.text_files import BUILTIN_NAME, TextPair, builtin_text, read_pairs
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.text import Tokenizer

logger = logging.getLogger(__name__)
WRITTEN = 64
"""Tokens of a target that the model writes itself."""
FEW = 1000
"""Tokens below which a text is too short for second moments of hundreds of inputs."""
LOOKED_AT = 64
"""Targets that are read to see whether the tokenizer can."""
TOGETHER = 32
"""Targets that are written side by side."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A text, ready to be fed.

    Attributes:
        text: what to say of it.
        batches: its tokens.
        written: whether the model wrote the targets itself, so that they measure nothing.
    """

    text: Text
    batches: list[Batch]
    written: bool


def read_calibration(
    bundle: Bundle,
    path: Path | None,
    tokens: int,
    seed: int,
    generator: Callable[[], Generator],
    progress: Progress,
    *,
    own_targets: bool = True,
) -> Calibration:
    """Read and tokenize a text; None is the one that ships with edgedec.

    An encoder-decoder writes the targets that the text does not have: greedily, in floating point.

    Args:
        bundle: the model, with its tokenizer.
        path: a file as `edgedec.quantize.text.text_files.read_pairs` takes it.
        tokens: at most so many of it.
        seed: which of its samples.
        generator: opens the bundle.
        progress: told what is being written.
        own_targets: whether targets that the text has are used. Without, sources that are longer
            than the model takes are cut rather than left out: no target goes with the whole.

    Raises:
        InputError: no tokenizer, no such file, or nothing in it that the model could read.
    """
    if "tokenizer.json" not in bundle.manifest.files:
        raise InputError(
            f"{str(bundle.folder)!r} has no tokenizer to read a calibration text with: export the "
            "checkpoint with --tokenizer, or use 'edgedec export --quant cb4 --method kmeans', "
            "which needs no text."
        )
    tokenizer = Tokenizer.open(bundle.path("tokenizer.json"))

    encodes = bundle.manifest.encoder is not None
    cuts = encodes and not own_targets
    io = bundle.manifest.interface
    limits = [io.max_source] if cuts else [io.max_source, io.max_target]
    longest = min([LONGEST, *(limit for limit in limits if limit is not None)])
    tokenize = _Tokenize(tokenizer, longest if cuts else None)
    pick = partial(
        pick_samples,
        tokenize=tokenize,
        encoder_decoder=encodes,
        tokens=tokens,
        longest=longest,
        seed=seed,
    )
    if path is None:
        logger.warning(
            "No calibration text was given (--calib): it is %s, English prose that comes with "
            "edgedec. Text like what the model will read is better: with codes that were learned "
            "from it, a translator's predictions differed half as much (docs/jlcm.md).",
            BUILTIN_NAME,
        )
        samples = pick(builtin_text())
    else:
        pairs = read_pairs(path)
        if cuts:
            pairs = [replace(pair, target=None) for pair in pairs]
        samples = pick(_readable(pairs, tokenizer, path))
    if tokenize.cut:
        logger.info(
            "%d of the texts were cut to the %d tokens that are read.", tokenize.cut, longest
        )
    _check_tokens(bundle, samples)
    written = any(sample.target is None for sample in samples)
    if written:
        samples = _write_targets(samples, generator(), progress)
    name = BUILTIN_NAME if path is None else path.name
    config = bundle.manifest.generation
    try:
        batches = make_batches(
            samples,
            pad=config.pad_token_id or 0,
            start=config.decoder_start_token_id if encodes else None,
        )
    except ValueError as error:
        raise InputError(
            f"nothing of {path or name} can be used: give texts of two tokens or more, at most "
            f"{min(longest, tokens):,}."
        ) from error
    counted = int(sum(b.target_mask.sum() for b in batches))
    if counted < FEW:
        logger.warning(
            "%s has only %d tokens that the model can predict: what is learned from so few, and "
            "what is measured on them, says little about other texts; give %d or more.",
            name,
            counted,
            FEW,
        )
    counted += int(sum(0 if b.source_mask is None else b.source_mask.sum() for b in batches))
    return Calibration(Text(name, len(samples), counted), batches, written)


class _Tokenize:
    """Text -> token ids.

    Args:
        tokenizer: of the model.
        longest: tokens to which longer texts are cut; None: they are not.

    Attributes:
        cut: how many were.
    """

    def __init__(self, tokenizer: Tokenizer, longest: int | None) -> None:
        self._tokenizer, self._longest = tokenizer, longest
        self._ends = tokenizer.encode([""])[0]
        self.cut = 0

    def __call__(self, text: str) -> list[int]:
        """The tokens, special ones included."""
        tokens = self._tokenizer.encode([text])[0]
        if self._longest is None or len(tokens) <= self._longest:
            return tokens
        self.cut += 1
        return shorten(tokens, self._longest, self._ends)


def _check_tokens(bundle: Bundle, samples: Sequence[Sample]) -> None:
    """Refuse a tokenizer of another model.

    Raises:
        InputError: it makes tokens that this one does not have.
    """
    size = bundle.manifest.interface.vocab_size
    for token in {t for s in samples for t in (*(s.source or ()), *(s.target or ()))}:
        if not 0 <= token < size:
            raise InputError(
                f"the tokenizer of {str(bundle.folder)!r} makes token {token}, which the model "
                f"({size:,} tokens) does not have: export it with its own tokenizer."
            )


def shorten(tokens: Sequence[int], length: int, ends: Sequence[int]) -> list[int]:
    """Cut a text's tokens, and keep the special ones that stand at its end.

    Args:
        tokens: of the text.
        length: how many may stay; at least 1.
        ends: the special tokens, which an empty text consists of.
    """
    kept = 0
    while kept < min(len(ends), length - 1) and tokens[-kept - 1] == ends[-kept - 1]:
        kept += 1
    return [*tokens[: length - kept], *tokens[len(tokens) - kept :]]


def own_text(bundle: Bundle) -> Path | None:
    """The calibration text that came with the checkpoint, None without."""
    names = ("calibration.tsv", "calibration.jsonl", "calibration.txt")
    return next((bundle.path(name) for name in names if name in bundle.manifest.files), None)


def _readable(pairs: list[TextPair], tokenizer: Tokenizer, path: Path) -> list[TextPair]:
    """The pairs without targets, if most of these are no text that the tokenizer can read.

    A model that writes another alphabet than it reads may have a tokenizer for what it reads.
    """
    targets = [pair.target for pair in pairs if pair.target is not None][:LOOKED_AT]
    read = [tokenizer.decode(tokenizer.encode([target])[0]) for target in targets]
    same = [_letters(a) == _letters(b) for a, b in zip(targets, read, strict=True)]
    if not targets or 2 * sum(same) >= len(same):
        return pairs
    logger.warning(
        "The tokenizer cannot read the targets in %s: the model writes its own instead, and no "
        "loss is measured.",
        path,
    )
    return [replace(pair, target=None) for pair in pairs]


def _letters(text: str) -> str:
    return "".join(text.casefold().split())


def _write_targets(
    samples: Sequence[Sample], generator: Generator, progress: Progress
) -> list[Sample]:
    """Let the model write the targets that are missing; samples of like length together."""
    found = list(samples)
    missing = [i for i, s in enumerate(found) if s.target is None and s.source]
    order = sorted(missing, key=lambda i: len(found[i].source or ()))
    for begin in range(0, len(order), TOGETHER):
        progress("writing targets", begin / len(order))
        these = order[begin : begin + TOGETHER]
        results = generator.generate(
            [list(found[i].source or ()) for i in these],
            batch_size=len(these),
            num_beams=1,
            temperature=0.0,
            max_new_tokens=WRITTEN,
        )
        for i, result in zip(these, results, strict=True):
            found[i] = replace(found[i], target=tuple(np.asarray(result.tokens).tolist()))
    return [sample for sample in found if sample.target]
