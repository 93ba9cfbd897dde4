"""The graphs of a bundle, opened: of any length, or of fixed shapes, or some of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgedec.runtime.bundle import Bundle
from edgedec.runtime.components import Components
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.encoder import Encoder, Memory
from edgedec.runtime.manifest import Limits
from edgedec.runtime.resident.arena import Arena
from edgedec.runtime.session import Session
from edgedec.runtime.steps import Steps

if TYPE_CHECKING:  # most bundles need none of it
    from edgedec.runtime.resident.encoder import ResidentEncoder
    from edgedec.runtime.resident.memory import ResidentMemory
    from edgedec.runtime.static.components import StaticComponents
    from edgedec.runtime.static.encoder import StaticEncoder
    from edgedec.runtime.static.memory import StaticMemory


class Opens(Protocol):
    """Opens the components of a bundle; `edgedec.runtime.opening.Opener` documents it."""

    limits: Limits

    def open(self, component: str) -> Session:
        """Open a component."""

    def arena(self, component: str) -> Arena | None:
        """The memory of its device; None where that is the host's."""


@dataclass(frozen=True, eq=False)
class Model:
    """What encodes, and what decodes.

    Attributes:
        encoder: None of a decoder-only model.
        decoder: its components.
        rows: sequences that can run side by side, None for any number.
        source: tokens of a source that graphs take, None for any number.
        target: positions that caches hold, None for any number.
    """

    encoder: Encoder | StaticEncoder | ResidentEncoder | None
    decoder: Components | StaticComponents
    rows: int | None = None
    source: int | None = None
    target: int | None = None

    @property
    def encodes(self) -> bool:
        """Whether there is an encoder."""
        return self.encoder is not None

    @property
    def components(self) -> Components:
        """Of a decoder that depth policies may divide."""
        assert isinstance(self.decoder, Components)
        return self.decoder

    def start(
        self,
        sources: Sequence[Sequence[int]] | None,
        rows: int,
        *,
        pad: int,
        clock: Clock,
        anchors: bool = False,
    ) -> Steps:
        """Encode, and begin decoding.

        Args:
            sources: token ids of every row, None if decoder-only.
            rows: sequences decoded side by side.
            pad: token to fill sources with.
            clock: is told how long runs take.
            anchors: keep what low-rank variants need.

        Raises:
            InputError: there is not enough memory for it.
        """
        memory = None
        if self.encoder is not None:
            assert sources is not None
            memory = self.encoder.encode(sources, pad)
        if not isinstance(self.decoder, Components):
            from edgedec.runtime.static.decoding import StaticDecoding

            return StaticDecoding(self.decoder, _of_the_host(memory), rows, clock=clock)
        if self.target is None:
            return Decoding(self.decoder, _standard(memory), rows, anchors=anchors, clock=clock)
        return self._start_resident(memory, rows, clock=clock, anchors=anchors)

    def _start_resident(
        self,
        memory: Memory | StaticMemory | ResidentMemory | None,
        rows: int,
        *,
        clock: Clock,
        anchors: bool,
    ) -> Steps:
        from edgedec.runtime.resident.components import ResidentComponents
        from edgedec.runtime.resident.decoding import ResidentDecoding
        from edgedec.runtime.resident.memory import ResidentMemory

        assert isinstance(self.decoder, ResidentComponents)
        if not isinstance(memory, ResidentMemory):
            memory = _standard(memory)
        return ResidentDecoding(self.decoder, memory, rows, anchors=anchors, clock=clock)


def _of_the_host(
    memory: Memory | StaticMemory | ResidentMemory | None,
) -> Memory | StaticMemory | None:
    """What lies in a device's memory, in the host's."""
    if memory is None or isinstance(memory, Memory):
        return memory
    from edgedec.runtime.resident.memory import ResidentMemory, to_host

    return to_host(memory) if isinstance(memory, ResidentMemory) else memory


def _standard(memory: Memory | StaticMemory | ResidentMemory | None) -> Memory | None:
    """What a decoder of any length reads."""
    memory = _of_the_host(memory)
    if memory is None or isinstance(memory, Memory):
        return memory
    from edgedec.runtime.static.memory import to_standard

    return to_standard(memory)


def open_model(bundle: Bundle, opener: Opens, *, ahead: bool = True) -> Model:
    """Open and check the graphs of a bundle.

    Args:
        bundle: checked.
        opener: of its components.
        ahead: several greedy steps may be made in one launch.

    Raises:
        BundleError: a graph does not fit the manifest.
        DeviceError: a device cannot run it.
    """
    manifest = bundle.manifest
    static, limits = manifest.static, opener.limits
    encoder, encodes = _open_encoder(bundle, opener)
    reach = (limits.rows, limits.source) if encodes else (None, None)
    if static is not None and static.decoder is not None:
        from edgedec.runtime.static.components import open_static

        return Model(encoder, open_static(bundle, opener.open), *reach)
    arena = opener.arena(manifest.stages[0].component)
    if arena is not None:
        from edgedec.runtime.resident.components import ResidentComponents

        resident = ResidentComponents(manifest, opener.open, arena, limits, ahead=ahead)
        return Model(encoder, resident, limits.rows, limits.source, limits.target)
    return Model(encoder, Components(manifest, opener.open), *reach)


def _open_encoder(
    bundle: Bundle, opener: Opens
) -> tuple[Encoder | StaticEncoder | ResidentEncoder | None, bool]:
    """The encoder, if there is one, and whether its memory is a device's own."""
    manifest = bundle.manifest
    io, static = manifest.interface, manifest.static
    if manifest.encoder is None:
        return None, False
    with_mean = manifest.router is not None
    if static is not None and static.encoder is not None:
        from edgedec.runtime.static.bias import read_bias
        from edgedec.runtime.static.encoder import StaticEncoder

        table = static.encoder.bias
        bias = read_bias(bundle.path(table.file), table)
        return StaticEncoder(opener.open(manifest.encoder), io, static, bias), False
    session, arena = opener.open(manifest.encoder), opener.arena(manifest.encoder)
    if arena is None:
        return Encoder(session, io, with_mean=with_mean), False
    from edgedec.runtime.resident.encoder import ResidentEncoder

    return ResidentEncoder(session, io, opener.limits, arena, with_mean=with_mean), True
