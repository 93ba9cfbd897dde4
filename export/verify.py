"""Check what was just written against another implementation of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import CheckFailedError
from edgedec.export.reference import Array
from edgedec.export.route import Ids, Logits
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Rounding, Verified

TOLERANCE = {"fp32": 2e-4, "fp16": 2e-3, "bf16": 2e-2}
"""Largest accepted logit difference, as a fraction of the logits' range, by weight storage."""
ROUNDING_TOLERANCE = 3
"""Largest accepted logit difference where products round their inputs to fewer bits, in terms of
what this rounding does to the logits. Both sides round alike, but an input that lies between two
values, to within the last bit of float32, goes either way; then all that follows is rounded
differently, and the two differ by as much as rounding and not rounding do."""
STEPS = 3
"""Tokens that are fed one by one, after the rest of the target in one pass."""


def verify(bundle: Bundle, logits: Logits, tolerance: float, lengths: tuple[int, int]) -> Verified:
    """Compare logits on random tokens: two rows of different lengths, in one pass and by steps.

    The rows differ in their sources, or in their prompts where there is no source.

    Args:
        bundle: what was written.
        logits: the other implementation: the NumPy reference of a spec, or the original in torch.
        tolerance: largest accepted difference, as a fraction of the logits' range.
        lengths: tokens of the longer source, and of each target.

    Raises:
        CheckFailedError: the difference is larger than that.
    """
    found = _compare(bundle, [logits], lengths)
    difference = float(np.abs(found.actual - found.expected[0]).max())
    reach = found.reach
    if not difference <= tolerance * reach:
        raise CheckFailedError(
            f"the exported graphs differ from the reference by {difference:.3g} in logits of range "
            f"{reach:.3g}: the bundle was not written; please report this checkpoint "
            "(--no-verify writes it all the same)."
        )
    return Verified(max_abs_difference=difference, logit_range=reach, tokens=found.tokens)


def verify_rounding(
    bundle: Bundle, rounding: Logits, exact: Logits, lengths: tuple[int, int]
) -> Rounding:
    """Compare a bundle whose products round their inputs with a reference that does the same.

    Args:
        bundle: what was written.
        rounding: the reference, rounding as the bundle's products do.
        exact: the same reference without.
        lengths: as in `verify`.

    Raises:
        CheckFailedError: the difference is beyond `ROUNDING_TOLERANCE`.
    """
    found = _compare(bundle, [rounding, exact], lengths)
    rounded, plain = found.expected
    difference = float(np.abs(found.actual - rounded).max())
    effect = float(np.abs(rounded - plain).max())
    if not difference <= ROUNDING_TOLERANCE * effect + TOLERANCE["fp32"] * found.reach:
        raise CheckFailedError(
            f"the exported graphs differ by {difference:.3g} from a reference that rounds as they "
            f"do, which changes its logits by {effect:.3g}: the bundle was not written; please "
            "report this checkpoint (--no-verify writes it all the same)."
        )
    return Rounding(max_abs_difference=difference, effect=effect)


def verify_outputs(
    names: Sequence[str], actual: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]
) -> None:
    """Compare a bare model's outputs with those of a reference, which computes in float32 too.

    Integers are not compared: which one comes out may hang on a float's last bit.

    Args:
        names: of the outputs.
        actual: what the model makes.
        expected: what the reference makes of the same inputs.

    Raises:
        CheckFailedError: they differ by more than what summing in another order does.
    """
    for name, found, wanted in zip(names, actual, expected, strict=True):
        if found.shape != wanted.shape:
            raise CheckFailedError(
                f"the output {name!r} has the shape {list(found.shape)}, but a reference "
                f"{list(wanted.shape)}: nothing was written; please report this model (--no-verify "
                "writes it all the same)."
            )
        if wanted.dtype.kind != "f":
            continue
        finite = np.isfinite(wanted)
        reach = float(np.abs(wanted[finite]).max(initial=0.0))
        difference = float(np.abs(found[finite] - wanted[finite]).max(initial=0.0))
        if not difference <= TOLERANCE["fp32"] * reach:
            raise CheckFailedError(
                f"the output {name!r} differs by {difference:.3g} from a reference whose largest "
                f"value is {reach:.3g}: nothing was written; please report this model (--no-verify "
                "writes it all the same)."
            )


def once(logits: Logits) -> Logits:
    """The same, computed once: every check feeds the same tokens, and a reference is slow."""
    kept: list[Array] = []

    def remembered(source: Ids | None, mask: Ids | None, target: Ids) -> Array:
        if not kept:
            kept.append(logits(source, mask, target))
        return kept[0]

    return remembered


@dataclass(frozen=True, eq=False)
class _Compared:
    """Logits ``[2, positions, vocab]`` of a bundle, and of every reference.

    ``reach`` is the range of the first reference's logits over all ``tokens`` of the targets.
    """

    actual: Array
    expected: tuple[Array, ...]
    reach: float
    tokens: int


def _compare(bundle: Bundle, references: Sequence[Logits], lengths: tuple[int, int]) -> _Compared:
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
        expected = [logits(source, mask, target) for logits in references]
        prompts = np.array([unequal[0]] * 2)
    else:
        sources = None
        expected = [logits(None, None, target) for logits in references]
        prompts = np.array(unequal)
    actual = _run(bundle, sources, target, prompts, steps)
    scored = prompts[:, None] - 1 + np.arange(steps + 1)
    return _Compared(
        actual,
        tuple(found[[[0], [1]], scored] for found in expected),
        reach=float(expected[0].max() - expected[0].min()),
        tokens=int(target.size),
    )


def _run(
    bundle: Bundle, sources: list[list[int]] | None, target: Ids, prompts: Ids, steps: int
) -> Array:
    """Logits after the first ``prompts [2]`` tokens in one pass, and after each of the next."""
    generator = Generator(bundle, threads=1)
    decoding = generator.start_decoding(sources, len(target))
    logits = []

    def step(tokens: Ids, counts: Ids | None) -> None:
        output = decoding.step(tokens, counts=counts, want_logits=True)
        assert output.logits is not None
        logits.append(output.logits.copy())

    step(np.ascontiguousarray(target[:, : prompts.max()]), prompts)
    for k in range(steps):
        step(target[[0, 1], prompts + k][:, None], None)
    return np.stack(logits, axis=1)
