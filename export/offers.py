"""What `edgedec inspect` says of a checkpoint: the model, and which depth policies it can serve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from os import PathLike
from typing import Any, cast

from edgedec.errors import InputError
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.depth import DepthFacts
from edgedec.export.depth_plan import defaults, missing
from edgedec.export.families import depth_of, open_model
from edgedec.export.peft import LoraFacts
from edgedec.runtime.depth.options import POLICIES, describe, policy_class, policy_from
from edgedec.runtime.manifest import Source


@dataclass(frozen=True)
class Offer:
    """Whether a checkpoint can serve a policy.

    Attributes:
        policy: its name.
        depth: what ``edgedec export --depth`` takes for it, ``...`` standing for parameters that
            have no default; None where it cannot.
        reason: why not; None where it can.
    """

    policy: str
    depth: str | None
    reason: str | None


@dataclass(frozen=True)
class Offers:
    """A checkpoint as `edgedec inspect` shows it.

    Attributes:
        source: what it is, with a hash of its files.
        family: how it is read.
        architecture: ``encoder-decoder`` or ``decoder-only``.
        encoder_layers: None without an encoder.
        parameters: values of all tensors that are stored, of an adapter those of its base.
        depth: what was trained for dynamic depth.
        lora: an adapter in PEFT's format, None without.
        policies: all depth policies.
    """

    source: Source
    family: str
    architecture: str
    vocab_size: int
    d_model: int
    encoder_layers: int | None
    parameters: int
    depth: DepthFacts
    lora: LoraFacts | None
    policies: tuple[Offer, ...]


def read_offers(name: str | PathLike[str], base: str | None = None) -> Offers:
    """Read what a checkpoint offers, without reading its weights more than once for their hash.

    Args:
        name: a folder, or Mu's ``.pt``.
        base: of an adapter in PEFT's format alone, what it was trained on.

    Raises:
        EdgedecError: as `edgedec.export.export_checkpoint`.
    """
    checkpoint = open_checkpoint(str(name), base=base)
    spec, _ = open_model(checkpoint.config, checkpoint.tensors)
    facts = depth_of(checkpoint.config, checkpoint.tensors, spec)
    return Offers(
        source=checkpoint.source,
        family=spec.family,
        architecture="decoder-only" if spec.encoder is None else "encoder-decoder",
        vocab_size=spec.vocab_size,
        d_model=spec.d_model,
        encoder_layers=None if spec.encoder is None else spec.encoder.layers,
        parameters=sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values()),
        depth=facts,
        lora=checkpoint.lora,
        policies=tuple(_offers(facts)),
    )


def _offers(facts: DepthFacts) -> Iterator[Offer]:
    for name in POLICIES:
        known = defaults(facts, name)
        needed = [
            field.name
            for field in fields(cast("Any", policy_class(name)))
            if field.name not in known and field.default is MISSING
        ]
        if needed:  # what these must be depends on the wish, not on the checkpoint
            yield Offer(name, f"{name}:" + ",".join(f"{key}=..." for key in needed), None)
            continue
        try:
            policy = policy_from(name, known)
            reasons = list(missing(policy.needs(facts.layers), facts))
        except InputError as error:
            reasons = [str(error).removeprefix(f"--depth {name}: ").removesuffix(".")]
        if reasons:
            yield Offer(name, None, reasons[0])
        else:
            yield Offer(name, describe(policy), None)
