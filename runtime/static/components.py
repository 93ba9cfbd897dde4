"""The decoder components of a bundle of fixed shapes, opened and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgedec.errors import BundleError
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Interface, Stage, Static, StaticDecoder
from edgedec.runtime.session import Session
from edgedec.runtime.static.bias import Bias, read_bias
from edgedec.runtime.static.contract import check_static_decoder
from edgedec.runtime.static.numbers import Numbers


@dataclass(frozen=True, eq=False)
class StaticComponents:
    """Sessions of the decoder, and what they are fed.

    Attributes:
        interface, static, decoder, stages: of the manifest.
        bias: of self-attention.
        numbers: how caches and the source's keys and values store their numbers, by input.
        step: takes a token at a time, and gives one or several.
        prefill: takes several at a time; None without.
    """

    interface: Interface
    static: Static
    decoder: StaticDecoder
    stages: tuple[Stage, ...]
    bias: Bias
    numbers: dict[str, Numbers]
    step: Session
    prefill: Session | None


def open_static(bundle: Bundle, open_component: Callable[[str], Session]) -> StaticComponents:
    """Open a decoder of fixed shapes.

    Args:
        bundle: whose manifest has one.
        open_component: opens a component by its name.

    Raises:
        BundleError: a graph does not fit the manifest.
    """
    manifest = bundle.manifest
    static, io = manifest.static, manifest.interface
    assert static is not None
    decoder = static.decoder
    assert decoder is not None
    step = open_component(manifest.stages[0].component)
    numbers = check_static_decoder(step, io, static, prefill=False)
    prefill = None if decoder.prefill is None else open_component(decoder.prefill)
    if prefill is not None and numbers != check_static_decoder(prefill, io, static, prefill=True):
        raise BundleError(
            f"{step.name} and {prefill.name} store their caches in different types: export the "
            "bundle again."
        )
    return StaticComponents(
        interface=io,
        static=static,
        decoder=decoder,
        stages=manifest.stages,
        bias=read_bias(bundle.path(decoder.bias.file), decoder.bias),
        numbers=numbers,
        step=step,
        prefill=prefill,
    )
