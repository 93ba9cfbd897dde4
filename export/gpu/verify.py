"""Check what is made of a bundle's graphs for a GPU, on the CPU: what it computes, and chooses.

No GPU is asked: graphs are compared, not engines, which are checked where they are built and run.
The graphs are those of the device `cuda`, whichever was asked for: ONNX Runtime's CPU provider has
no bfloat16, in which TensorRT computes the second product of feed-forward blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgedec.errors import CheckFailedError, InputError
from edgedec.export.bundle import Progress
from edgedec.export.feeding import NO_NUMBER, equal, predictions, relative_error, start_of
from edgedec.export.gpu.host import start_on_host
from edgedec.export.gpu.options import GpuOptions
from edgedec.export.passages import (
    Passage,
    continued,
    first_tokens,
    limited,
    random_samples,
    unrounded,
)
from edgedec.export.places import Place
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Limits

logger = logging.getLogger(__name__)
READ = 512
"""Random tokens that the model is given, over all passages."""
TOKENS = 128
"""Chosen tokens that are compared at most: one of them is 0.8 %."""
FAR = 0.05
"""Of the logits' range: what 16 bits may do. Trained models gave 0.0003 to 0.0014."""

ANYWAY = (
    "it was not written; --device cpu runs other graphs, and --no-verify writes it all the same."
)


@dataclass(frozen=True)
class Closeness:
    """What graphs for a GPU did on the CPU, beside the bundle's own in float32.

    Attributes:
        tokens: that were chosen, fed what the model itself had written.
        agreement: share of them that are equal.
        error: greatest difference of logits, relative to the range of these; `NO_NUMBER` where
            one is infinite or no number.
    """

    tokens: int
    agreement: float
    error: float


def verify_resident(
    bundle: Bundle,
    options: GpuOptions,
    place: Place,
    limits: Limits,
    work: Path,
    progress: Progress,
) -> Closeness:
    """Compare the graphs for a GPU with the bundle's own.

    Args:
        bundle: whose files are written.
        options: with the least agreement; 0 refuses nothing.
        place: the parts that the GPU runs; the others stay the bundle's own.
        limits: how far the graphs reach.
        work: an empty folder.
        progress: told what is running.

    Raises:
        InputError: a graph that cannot be lowered.
        CheckFailedError: they give other numbers, or none.
    """
    short = limited(bundle, limits.source, limits.target)
    (work / "host").mkdir()
    exact = Generator(unrounded(short, work / "exact"), device="cpu")
    passages = first_tokens(_passages(short, exact, progress), TOKENS)
    told = partial(progress, "verifying: the model")
    wanted = predictions(start_of(exact), passages, told, scored=TOKENS)
    del exact  # a large model is in memory once
    progress("lowering", 0.0)
    start = start_on_host(short, place, limits, work / "host")
    told = partial(progress, "verifying: the graphs for the GPU, on the CPU")
    found = predictions(start, passages, told, scored=TOKENS)
    error = relative_error(found.logits, wanted.logits)
    assert error is not None
    closeness = Closeness(
        tokens=sum(map(len, wanted.tokens)),
        agreement=equal(found.tokens, wanted.tokens),
        error=error,
    )
    refuse_far(closeness, options)
    logger.info(
        "the graphs for the GPU choose as the model does: %.3f of %d tokens on the CPU, with "
        "logits within %.1e of their range",
        *(closeness.agreement, closeness.tokens, closeness.error),
    )
    return closeness


def refuse_far(found: Closeness, options: GpuOptions) -> None:
    """Refuse graphs that are too far from the model.

    Raises:
        CheckFailedError: with the figures.
    """
    if options.least == 0:
        return
    if found.error >= NO_NUMBER:
        raise CheckFailedError(
            "the graphs for the GPU give numbers that are infinite or none, because a value of "
            f"this model exceeds what 16 bits hold: {ANYWAY}"
        )
    if found.error > FAR or found.agreement < options.least:
        raise CheckFailedError(
            f"the graphs for the GPU choose the same token as the model at {found.agreement:.3f} "
            f"of {found.tokens} places (--min-agreement is {options.least:g}), and their logits "
            f"differ by up to {found.error:.3g} of their range, of which 16 bits would explain "
            f"{FAR:g}: {ANYWAY}"
        )


def _passages(bundle: Bundle, exact: Generator, progress: Progress) -> Sequence[Passage]:
    """Random sources or prompts, and what the model says then.

    Raises:
        InputError: it says nothing.
    """
    samples = continued(bundle, random_samples(bundle, READ), exact, progress)
    if bundle.manifest.encoder is None:
        found = [Passage(None, s.source or (), s.target or ()) for s in samples]
    else:
        start = bundle.manifest.generation.decoder_start_token_id
        assert start is not None  # or nothing would have been generated
        found = [Passage(s.source, (start,), s.target or ()) for s in samples]
    if not found:
        raise InputError(
            "the model says nothing that graphs for the GPU could be compared by: export with "
            "--no-verify."
        )
    order = np.random.default_rng(0).permutation(len(found))
    return [found[index] for index in order.tolist()]
