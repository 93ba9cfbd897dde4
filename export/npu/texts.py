"""What graphs of fixed shapes are calibrated and verified on: texts that the model goes on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgedec.errors import BundleError, InputError
from edgedec.export.bundle import Progress
from edgedec.export.calibration import Calibration, own_text, read_calibration
from edgedec.export.passages import Passage, continued, random_samples
from edgedec.quantize.reporting.report import Text
from edgedec.quantize.text.batches import Batch, make_batches
from edgedec.quantize.text.samples import Sample
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator

TOKENS = 2048
"""Of a text: ranges and shares of equal tokens change little with more."""
RANDOM = "random tokens"
"""What the text of a model without a tokenizer is called."""


def read_text(
    bundle: Bundle, path: Path | None, generator: Generator, progress: Progress
) -> Calibration:
    """The text of a user, of the checkpoint, or one that ships with edgedec, as tokens.

    A model without a tokenizer, and without a text, gets random tokens.

    Args:
        bundle: with limits as `limited` sets them.
        path: a file as `read_calibration` takes it; None for the checkpoint's own text.
        generator: of the bundle: an encoder-decoder writes its targets.
        progress: told what is being written.

    Raises:
        InputError: a text that cannot be read or used.
    """
    if "tokenizer.json" in bundle.manifest.files:
        path = path or own_text(bundle)
        return read_calibration(
            bundle, path, TOKENS, 0, lambda: generator, progress, own_targets=False
        )
    if path is not None:
        raise InputError(
            f"--calib {path}: the model has no tokenizer to read it with; give one with "
            "--tokenizer, or leave --calib out and it is random tokens."
        )
    samples = continued(bundle, random_samples(bundle, TOKENS), generator, progress)
    batches = make_batches(samples, pad=_pad(bundle), start=_start(bundle))
    tokens = int(sum(batch.target_mask.sum() for batch in batches))
    return Calibration(Text(RANDOM, len(samples), tokens), batches, written=True)


def passages_of(
    bundle: Bundle, text: Calibration, generator: Generator, progress: Progress
) -> list[Passage]:
    """The text as passages, in an order that mixes long and short ones.

    A decoder-only model is given the first half of each piece of text, and goes on by itself.

    Args:
        bundle: as for `read_text`.
        text: what that gave.
        generator: of the bundle.
        progress: told what is being written.

    Raises:
        InputError: the model has nothing to say about any of it.
    """
    rows = [row for batch in text.batches for row in _rows(batch)]
    if bundle.manifest.encoder is None:
        prompts = [prompt[: (len(prompt) + 1) // 2] for _, prompt, _ in rows]
        samples = [Sample(prompt, None) for prompt in prompts]
        found = [
            Passage(None, sample.source or (), sample.target or ())
            for sample in continued(bundle, samples, generator, progress)
        ]
    else:
        found = [Passage(source, fed[:1], labels) for source, fed, labels in rows]
    if not found:
        raise InputError(
            f"the model says nothing about {text.text.name}: give another text with --calib."
        )
    order = np.random.default_rng(0).permutation(len(found))
    return [found[index] for index in order.tolist()]


def _rows(
    batch: Batch,
) -> list[tuple[tuple[int, ...] | None, tuple[int, ...], tuple[int, ...]]]:
    """Source, decoder input and labels of every row, without padding."""
    rows = []
    for row, mask in enumerate(batch.target_mask):
        source = None
        if batch.source is not None and batch.source_mask is not None:
            source = tuple(batch.source[row][batch.source_mask[row] > 0].tolist())
        fed, labels = batch.target[row][mask].tolist(), batch.labels[row][mask].tolist()
        rows.append((source, tuple(fed), tuple(labels)))
    return rows


def _pad(bundle: Bundle) -> int:
    return bundle.manifest.generation.pad_token_id or 0


def _start(bundle: Bundle) -> int | None:
    """The decoder's first token, None for a decoder-only model.

    Raises:
        BundleError: there is none.
    """
    if bundle.manifest.encoder is None:
        return None
    start = bundle.manifest.generation.decoder_start_token_id
    if start is None:
        raise BundleError(
            "the bundle names no decoder_start_token_id: export a checkpoint whose "
            "generation_config.json has one."
        )
    return start
