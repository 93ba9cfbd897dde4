"""Resident graphs of a bundle's components, and files of them."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgedec.devices.gpu.lowering.attention import Heads, heads_of
from edgedec.devices.gpu.lowering.lower import NO_HEADS, lower_resident
from edgedec.devices.gpu.lowering.model import Form, Resident
from edgedec.devices.passes.attention import fuse_attention
from edgedec.devices.passes.refusal import RefusalError, describe
from edgedec.errors import DeviceError, InputError
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Limits, Manifest, Stage

GRAPH, WEIGHTS = "graph.onnx", "weights.bin"


def resident_graph(bundle: Bundle, component: str, limits: Limits, form: Form) -> Resident:
    """The resident graph of a component of a bundle.

    Args:
        bundle: the bundle; any but one of fixed shapes.
        component: name in its manifest.
        limits: how far caches and profiles reach.
        form: how codes are computed with.

    Raises:
        DeviceError: the component cannot be lowered; the message names the node and the way out.
        InputError: it has a fixed shape.
    """
    manifest = bundle.manifest
    if manifest.static is not None:
        raise InputError(
            f"{component} has a fixed shape, made for another device: GPUs run the checkpoint or "
            "bundle that it was made from."
        )
    codes = manifest.codebooks
    matrices = {} if codes is None else codes.matrices.get(component, {})
    model = _load(bundle, component)
    try:
        return lower_resident(
            model,
            matrices,
            limits,
            form,
            chains=_chains(manifest, component),
            heads=_heads(bundle, component),
        )
    except RefusalError as refusal:
        where = component
        if refusal.node is not None:
            where = f"{describe(refusal.node)} of {component}"
        raise DeviceError(
            f"GPUs cannot run {where}: {refusal.reason}; leave it on the CPU "
            f"(--device {_part(manifest, component)}=cpu)."
        ) from refusal


def save_resident(resident: Resident, folder: Path) -> Path:
    """Write a graph, with its weights beside it.

    Args:
        resident: the graph; its weights are read.
        folder: an existing folder.

    Returns:
        The graph's file.
    """
    path = folder / GRAPH
    ir.save(resident.model, path, external_data=WEIGHTS, size_threshold_bytes=1024)
    return path


def _load(bundle: Bundle, component: str) -> ir.Model:
    return ir.load(bundle.path(bundle.manifest.components[component].file))


def _chains(manifest: Manifest, component: str) -> bool:
    """Whether a component is the whole decoder, with the head."""
    return manifest.head is None and [s.component for s in manifest.stages] == [component]


def _heads(bundle: Bundle, component: str) -> Heads:
    """The heads of the caches that a variant writes: those of its stage."""
    stage = _varied(bundle.manifest, component)
    if stage is None:
        return NO_HEADS
    model = _load(bundle, stage.component)
    fuse_attention(model.graph)
    return heads_of(model.graph)


def _varied(manifest: Manifest, component: str) -> Stage | None:
    return next((s for s in manifest.stages if component in s.variants.values()), None)


def _part(manifest: Manifest, component: str) -> str:
    return "encoder" if component == manifest.encoder else "decoder"
