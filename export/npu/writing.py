"""Write graphs of fixed shapes as a bundle, beside what stays of the one they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgedec.devices.npu.lower import Shapes, StaticModel
from edgedec.export.bundle import WEIGHTS, Progress, save_graphs, write_file
from edgedec.export.places import CPU, Place
from edgedec.quantize.reporting.report import REPORT
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import MANIFEST, Codebooks, Component, FileEntry, Manifest


def kept_components(base: Bundle, place: Place) -> list[str]:
    """The components that stay as they are: those of the part that the CPU runs."""
    manifest = base.manifest
    parts = {
        name: "encoder" if name == manifest.encoder else "decoder" for name in manifest.components
    }
    return [name for name, part in parts.items() if part not in place.parts]


def write_bundle(
    base: Bundle,
    model: StaticModel,
    shapes: Shapes,
    place: Place,
    precision: str,
    folder: Path,
    progress: Progress,
) -> Bundle:
    """Write graphs, their weights and tables into a folder; a manifest is made, and not written.

    Args:
        base: the bundle that they were made from.
        model: what was made; its weights are read, and lie in the folder then.
        shapes: the lengths that it has.
        place: where each part runs.
        precision: how its weights are stored.
        folder: an existing, empty folder.
        progress: told the fraction written.
    """
    kept = kept_components(base, place)
    graphs = _kept_graphs(base, kept) | {_named(base, n): m for n, m in model.models.items()}
    files, _ = save_graphs(graphs, folder, progress)
    for name, table in model.tables.items():
        data = np.ascontiguousarray(table, "<f4").tobytes()
        files[name] = write_file(folder / name, data)
    files |= _copy_others(base, kept, folder)
    return Bundle(folder, _manifest(base, model, shapes, place, precision, kept, files))


def copy_kept(
    base: Bundle, kept: list[str], folder: Path, progress: Progress
) -> dict[str, FileEntry]:
    """Write the components that stay, without the weights of those that do not."""
    if not kept:
        return {}
    return save_graphs(_kept_graphs(base, kept), folder, progress)[0]


def _kept_graphs(base: Bundle, kept: list[str]) -> dict[str, ir.Model]:
    components = base.manifest.components
    return {name: ir.load(base.path(components[name].file)) for name in kept}


def _named(base: Bundle, name: str) -> str:
    """What a lowered graph is called: as the one that it was made from."""
    manifest = base.manifest
    known = {"encoder": manifest.encoder, "decoder": manifest.stages[0].component}
    return known.get(name) or name


def _copy_others(base: Bundle, kept: list[str], folder: Path) -> dict[str, FileEntry]:
    """Tokenizer, configuration and licences; a calibration text has served."""
    manifest = base.manifest
    graphs = {component.file for component in manifest.components.values()}
    dropped = {WEIGHTS, MANIFEST, *graphs}
    if _codebooks(manifest, kept) is None:
        dropped.add(REPORT)
    return {
        name: write_file(folder / name, base.path(name).read_bytes())
        for name in manifest.files.keys() - dropped
        if not name.startswith("calibration.")
    }


def _manifest(
    base: Bundle,
    model: StaticModel,
    shapes: Shapes,
    place: Place,
    precision: str,
    kept: list[str],
    files: Mapping[str, FileEntry],
) -> Manifest:
    old = base.manifest
    lowered = {_named(base, name) for name in model.models}
    interface = old.interface
    if shapes.source is not None:
        interface = replace(interface, max_source=shapes.source)
    if model.static.decoder is not None:
        interface = replace(interface, max_target=shapes.target)
    components = {
        name: replace(old.components[name], file=f"{name}.onnx", device=CPU)
        if name in kept
        else Component(f"{name}.onnx", place.device, precision)
        for name in sorted({*kept, *lowered})
    }
    return replace(
        old,
        producer=f"edgedec {version('edgedec')}",
        interface=interface,
        components=components,
        policies={"full": {}},
        codebooks=_codebooks(old, kept),
        depth=None,
        static=model.static,
        limits=None,
        verified=None,
        files=dict(sorted(files.items())),
    )


def _codebooks(old: Manifest, kept: list[str]) -> Codebooks | None:
    """The codes that stay."""
    if old.codebooks is None:
        return None
    matrices = {n: found for n, found in old.codebooks.matrices.items() if n in kept}
    return replace(old.codebooks, matrices=matrices) if any(matrices.values()) else None
