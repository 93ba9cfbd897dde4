"""The graphs of a bundle, opened: of any length, or of fixed shapes, or some of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedec.runtime.bundle import Bundle
from edgedec.runtime.components import Components
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.encoder import Encoder, Memory
from edgedec.runtime.session import Session
from edgedec.runtime.steps import Steps

if TYPE_CHECKING:  # most bundles need none of it
    from edgedec.runtime.static.components import StaticComponents
    from edgedec.runtime.static.encoder import StaticEncoder
    from edgedec.runtime.static.memory import StaticMemory


@dataclass(frozen=True, eq=False)
class Model:
    """What encodes, and what decodes.

    Attributes:
        encoder: None of a decoder-only model.
        decoder: its components.
    """

    encoder: Encoder | StaticEncoder | None
    decoder: Components | StaticComponents

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
        if isinstance(self.decoder, Components):
            return Decoding(self.decoder, _standard(memory), rows, anchors=anchors, clock=clock)
        from edgedec.runtime.static.decoding import StaticDecoding

        return StaticDecoding(self.decoder, memory, rows, clock=clock)


def _standard(memory: Memory | StaticMemory | None) -> Memory | None:
    """What a decoder of any length reads."""
    if memory is None or isinstance(memory, Memory):
        return memory
    from edgedec.runtime.static.memory import to_standard

    return to_standard(memory)


def open_model(bundle: Bundle, open_component: Callable[[str], Session]) -> Model:
    """Open and check the graphs of a bundle.

    Args:
        bundle: checked.
        open_component: opens a component by its name.

    Raises:
        BundleError: a graph does not fit the manifest.
        DeviceError: a device cannot run it.
    """
    manifest = bundle.manifest
    io, static = manifest.interface, manifest.static
    encoder: Encoder | StaticEncoder | None = None
    if static is not None and static.encoder is not None:
        from edgedec.runtime.static.bias import read_bias
        from edgedec.runtime.static.encoder import StaticEncoder

        assert manifest.encoder is not None
        table = static.encoder.bias
        bias = read_bias(bundle.path(table.file), table)
        encoder = StaticEncoder(open_component(manifest.encoder), io, static, bias)
    elif manifest.encoder is not None:
        session = open_component(manifest.encoder)
        encoder = Encoder(session, io, with_mean=manifest.router is not None)
    if static is not None and static.decoder is not None:
        from edgedec.runtime.static.components import open_static

        return Model(encoder, open_static(bundle, open_component))
    return Model(encoder, Components(manifest, open_component))
