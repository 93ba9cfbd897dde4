"""Check a bundle that was just written against another implementation of its model."""

from __future__ import annotations

import numpy as np

from edgedec.errors import CheckFailedError
from edgedec.export.reference import Array
from edgedec.export.route import Ids, Logits
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.depth.full import Full
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Verified

TOLERANCE = {"fp32": 2e-4, "fp16": 2e-3, "bf16": 2e-2}
"""Largest accepted logit difference, as a fraction of the logits' range, by weight storage."""
STEPS = 3
"""Tokens that are fed one by one, after the rest of the target in one pass."""


def verify(bundle: Bundle, logits: Logits, storage: str, lengths: tuple[int, int]) -> Verified:
    """Compare logits on random tokens: two rows of different lengths, in one pass and by steps.

    The rows differ in their sources, or in their prompts where there is no source.

    Args:
        bundle: what was written.
        logits: the other implementation: the NumPy reference of a spec, or the original in torch.
        storage: how the bundle stores its weights.
        lengths: tokens of the longer source, and of each target.

    Raises:
        CheckFailedError: the difference is larger than `TOLERANCE`.
    """
    io = bundle.manifest.interface
    encodes = bundle.manifest.encoder is not None
    rng = np.random.default_rng(0)
    longest = min(lengths[0], io.max_source or lengths[0])
    size = min(lengths[1], io.max_target or lengths[1])
    # Some originals take a padding token for padding wherever it stands.
    pad = bundle.manifest.generation.pad_token_id
    tokens = np.setdiff1d(np.arange(io.vocab_size), [] if pad is None else [pad])
    source = rng.choice(tokens, (2, longest))
    target = rng.choice(tokens, (2, size))
    steps = min(STEPS, size - 1)
    unequal = [size - steps, max(1, (size - steps) // 2)]
    if encodes:
        counts = np.array([longest, max(1, longest // 2)])
        sources = [row[:n].tolist() for row, n in zip(source, counts, strict=True)]
        mask = (np.arange(longest) < counts[:, None]).astype(np.int64)
        expected = logits(source, mask, target)
        prompts = np.array([unequal[0]] * 2)
    else:
        sources = None
        expected = logits(None, None, target)
        prompts = np.array(unequal)
    actual = _run(bundle, sources, target, prompts, steps)
    scored = prompts[:, None] - 1 + np.arange(steps + 1)
    difference = float(np.abs(actual - expected[[[0], [1]], scored]).max())
    reach = float(expected.max() - expected.min())
    if not difference <= TOLERANCE[storage] * reach:
        raise CheckFailedError(
            f"the exported graphs differ from the reference by {difference:.3g} in logits of range "
            f"{reach:.3g}: the bundle was not written; please report this checkpoint "
            "(--no-verify writes it all the same)."
        )
    return Verified(max_abs_difference=difference, logit_range=reach, tokens=int(target.size))


def _run(
    bundle: Bundle, sources: list[list[int]] | None, target: Ids, prompts: Ids, steps: int
) -> Array:
    """Logits after the first ``prompts [2]`` tokens in one pass, and after each of the next."""
    generator = Generator(bundle, threads=1)
    plan = Full(len(bundle.manifest.stages)).plan(0, {})
    decoding = generator.start_decoding(sources, len(target))
    logits = []

    def step(tokens: Ids, counts: Ids | None) -> None:
        output = decoding.step(tokens, plan, counts=counts, want_logits=True)
        assert output.logits is not None
        logits.append(output.logits.copy())

    step(np.ascontiguousarray(target[:, : prompts.max()]), prompts)
    for k in range(steps):
        step(target[[0, 1], prompts + k][:, None], None)
    return np.stack(logits, axis=1)
