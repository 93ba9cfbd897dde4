"""Check a bundle that was just written against the NumPy reference of its spec."""

from __future__ import annotations

import numpy as np

from edgedec.errors import CheckFailedError
from edgedec.export.reference import Array, Ids, Reference
from edgedec.export.spec import ModelSpec
from edgedec.export.weights import Weights
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.depth.full import Full
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Verified

TOLERANCE = {"fp32": 2e-4, "fp16": 2e-3, "bf16": 2e-2}
"""Largest accepted logit difference, as a fraction of the logits' range, by weight storage."""
SOURCE, TARGET, STEPS = 9, 6, 3


def verify(bundle: Bundle, spec: ModelSpec, weights: Weights, storage: str) -> Verified:
    """Compare logits on random tokens: two rows, one of them padded, in one pass and by steps.

    Raises:
        CheckFailedError: the difference is larger than `TOLERANCE`.
    """
    rng = np.random.default_rng(0)
    source_length = min(SOURCE, spec.max_source or SOURCE)
    target_length = min(TARGET + STEPS, spec.max_target or TARGET + STEPS)
    source = rng.integers(0, spec.vocab_size, (2, source_length))
    target = rng.integers(0, spec.vocab_size, (2, target_length))
    counts = np.array([source_length, max(1, source_length // 2)])
    mask = (np.arange(source_length) < counts[:, None]).astype(np.int64)
    expected = Reference(spec, weights).logits(source, mask, target)
    actual = _run(
        bundle, spec, [list(row[:n]) for row, n in zip(source, counts, strict=True)], target
    )
    difference = float(np.abs(actual - expected[:, -actual.shape[1] :]).max())
    reach = float(expected.max() - expected.min())
    if not difference <= TOLERANCE[storage] * reach:
        raise CheckFailedError(
            f"the exported graphs differ from the reference by {difference:.3g} in logits of range "
            f"{reach:.3g}: the bundle was not written; please report this checkpoint "
            "(--no-verify writes it all the same)."
        )
    return Verified(max_abs_difference=difference, logit_range=reach, tokens=int(target.size))


def _run(bundle: Bundle, spec: ModelSpec, sources: list[list[int]], target: Ids) -> Array:
    """Logits of the last positions: after one pass over the prompt, then token by token."""
    generator = Generator(bundle, threads=1)
    plan = Full(len(bundle.manifest.stages)).plan(0, {})
    decoding = generator.start_decoding(sources if spec.encoder is not None else None, len(target))
    prompt = max(1, target.shape[1] - STEPS)
    logits = []
    for begin, end in [(0, prompt), *((t, t + 1) for t in range(prompt, target.shape[1]))]:
        output = decoding.step(np.ascontiguousarray(target[:, begin:end]), plan, want_logits=True)
        assert output.logits is not None
        logits.append(output.logits.copy())
    return np.stack(logits, axis=1)
