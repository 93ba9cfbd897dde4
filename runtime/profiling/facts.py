"""A bundle as a profile records it."""

from __future__ import annotations

import hashlib

from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import MANIFEST, Manifest
from edgedec.runtime.profiling.record import BundleFacts
from edgedec.runtime.profiling.traffic import step_weights

GRAPHS = (".onnx", ".bin")
"""Files of weights, and of the graphs that may hold small ones."""


def facts(bundle: Bundle) -> BundleFacts:
    """Read what a profile says of a bundle."""
    manifest = bundle.manifest
    io = manifest.interface
    weights = _weights(bundle)
    return BundleFacts(
        sha256=hashlib.sha256(bundle.path(MANIFEST).read_bytes()).hexdigest(),
        source=manifest.source.id,
        producer=manifest.producer,
        architecture=io.architecture,
        precision=_precision(manifest),
        compute=None if manifest.codebooks is None else manifest.codebooks.compute,
        parameters=manifest.parameters,
        file_bytes=sum(entry.bytes for entry in manifest.files.values()),
        weight_bytes=sum(
            entry.bytes for name, entry in manifest.files.items() if name.endswith(GRAPHS)
        ),
        encoder_layers=_encoder_layers(manifest),
        decoder_layers=io.decoder_layers,
        d_model=io.d_model,
        vocab_size=io.vocab_size,
        stages=len(manifest.stages),
        step_bytes=None if weights is None else sum(weights.values()),
        head_bytes=None if weights is None else weights.get(manifest.head or "", 0),
        kv_width=io.kv_width,
    )


def _weights(bundle: Bundle) -> dict[str, int] | None:
    """As `step_weights`; None where that is not what is read.

    Function bodies read what the codes unpack to, and graphs of fixed shapes are made for devices
    that store weights in ways of their own.
    """
    from edgedec.devices.base import get_device

    static = bundle.manifest.static
    if static is not None and static.decoder is not None:
        return None
    if bundle.manifest.codebooks is not None and get_device("cpu").fallback() is not None:
        return None
    return step_weights(bundle)


def _precision(manifest: Manifest) -> str:
    """Of all graphs that generate; several where they differ."""
    names = [manifest.encoder, manifest.head, *(stage.component for stage in manifest.stages)]
    found = {manifest.components[name].precision for name in names if name is not None}
    return ", ".join(sorted(found))


def _encoder_layers(manifest: Manifest) -> int | None:
    """What the exporter says; None without an encoder, or if it does not say."""
    encoder = manifest.model.get("encoder")
    layers = encoder.get("layers") if isinstance(encoder, dict) else None
    return layers if manifest.encoder is not None and isinstance(layers, int) else None
