"""What graphs are fed to be compared: sources or prompts, and what the model says then."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgedec.export.bundle import Progress
from edgedec.export.calibration import WRITTEN
from edgedec.export.codebooks import write_in_fp32
from edgedec.quantize.text.samples import Sample
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator

TOGETHER = 16
"""Passages that the model writes side by side."""


@dataclass(frozen=True)
class Passage:
    """What one sequence of a model is fed.

    Attributes:
        source: the encoder's tokens; None for a decoder-only model.
        prompt: what the decoder is fed first.
        written: what the floating-point model says then, greedily; at least one token.
    """

    source: tuple[int, ...] | None
    prompt: tuple[int, ...]
    written: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """What the model was given: the source, or the prompt of a decoder-only model."""
        return self.prompt if self.source is None else self.source


def unrounded(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle, or a copy of one with codes whose products do not round their inputs.

    Args:
        bundle: the model.
        folder: is made where there is something to copy.
    """
    codebooks = bundle.manifest.codebooks
    if codebooks is None or codebooks.compute == "fp32":
        return bundle
    folder.mkdir()
    for name in bundle.manifest.files:
        shutil.copy(bundle.path(name), folder / name)
    for component in bundle.manifest.components.values():
        write_in_fp32(bundle.path(component.file), folder / component.file)
    return replace(bundle, folder=folder)


def limited(bundle: Bundle, source: int | None, target: int) -> Bundle:
    """The bundle, which takes no more tokens than other graphs of it.

    Args:
        bundle: the model.
        source: tokens that these take; None where they take what the model does.
        target: likewise, prompt included.
    """
    io = bundle.manifest.interface
    interface = replace(io, max_source=source or io.max_source, max_target=target)
    return replace(bundle, manifest=replace(bundle.manifest, interface=interface))


def first_tokens(passages: Sequence[Passage], tokens: int) -> list[Passage]:
    """The first passages, in which so many tokens are written: the last one is cut."""
    found = []
    for passage in passages:
        if tokens <= 0:
            break
        found.append(replace(passage, written=passage.written[:tokens]))
        tokens -= len(passage.written)
    return found


def random_samples(bundle: Bundle, least: int) -> list[Sample]:
    """Random tokens, the same every time: sources, or the prompts of a decoder-only model.

    Args:
        bundle: whose tokens; special ones are left out.
        least: tokens, over all samples.
    """
    io = bundle.manifest.interface
    rng = np.random.default_rng(0)
    limit = io.max_target if bundle.manifest.encoder is None else io.max_source
    longest = min(WRITTEN, WRITTEN if limit is None else max(1, limit // 2))
    config = bundle.manifest.generation
    special = [t for t in (config.pad_token_id, *config.eos_token_ids) if t is not None]
    tokens = np.setdiff1d(np.arange(io.vocab_size), special)
    samples, left = [], least
    while left > 0:
        length = int(rng.integers(1, longest, endpoint=True))
        samples.append(Sample(tuple(rng.choice(tokens, length).tolist()), None))
        left -= length
    return samples


def continued(
    bundle: Bundle, samples: Sequence[Sample], generator: Generator, progress: Progress
) -> list[Sample]:
    """The samples with what the model says about their sources; without those that end it.

    Args:
        bundle: of the model.
        samples: sources, or prompts.
        generator: of the bundle.
        progress: told what is being written.
    """
    limit = bundle.manifest.interface.max_target
    if bundle.manifest.encoder is None and limit is not None:
        samples = [s for s in samples if len(s.source or ()) <= limit]
    found: list[Sample] = []
    for begin in range(0, len(samples), TOGETHER):
        progress("writing targets", begin / len(samples))
        these = samples[begin : begin + TOGETHER]
        results = generator.generate(
            [list(sample.source or ()) for sample in these],
            batch_size=len(these),
            num_beams=1,
            temperature=0.0,
            max_new_tokens=WRITTEN,
        )
        for sample, result in zip(these, results, strict=True):
            found.append(replace(sample, target=tuple(result.tokens)))
    return [sample for sample in found if sample.target]
