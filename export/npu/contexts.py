"""Compile a bundle's graphs for systems on chip: what is left is all that these need."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from edgedec.devices.socs import Soc
from edgedec.export.bundle import WEIGHTS, Progress, write_file
from edgedec.export.npu.options import NpuOptions
from edgedec.export.npu.writing import copy_kept, kept_components
from edgedec.export.places import Place
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Component, FileEntry


def compile_bundle(
    base: Bundle,
    static: Bundle,
    options: NpuOptions,
    place: Place,
    folder: Path,
    progress: Progress,
) -> Bundle:
    """Write a bundle of contexts into a folder; the graphs that they are made of are left out.

    Args:
        base: the bundle that the graphs were made from, of which components may stay.
        static: the graphs, complete.
        options: the systems on chip.
        place: where each part runs.
        folder: an existing, empty folder.
        progress: told what is being compiled.

    Raises:
        DeviceError: the compiler is missing, or refuses a graph.
    """
    kept = kept_components(base, place)
    manifest = static.manifest
    names = [name for name in manifest.components if name not in kept]
    contexts: dict[str, dict[str, str]] = {name: {} for name in names}
    files = copy_kept(base, kept, folder, progress)
    for done, socs in enumerate(options.socs):
        chip = "+".join(soc.name for soc in socs)
        progress(f"compiling for {chip}", done / len(options.socs))
        made = {name: f"{name}.{chip.replace('+', '-')}.onnx" for name in names}
        graphs = {
            static.path(manifest.components[name].file): folder / file
            for name, file in made.items()
        }
        for path in _compile(graphs, socs, share=options.share_contexts):
            files[path.name] = _entry(path)
        for name, file in made.items():
            contexts[name][chip] = file
    progress("compiling", 1.0)
    dropped = {WEIGHTS, *(component.file for component in manifest.components.values())}
    for name in manifest.files.keys() - dropped:
        files[name] = write_file(folder / name, static.path(name).read_bytes())
    components = {
        name: _with_contexts(component, contexts.get(name, {}))
        for name, component in manifest.components.items()
    }
    return Bundle(
        folder, replace(manifest, components=components, files=dict(sorted(files.items())))
    )


def _compile(graphs: dict[Path, Path], socs: tuple[Soc, ...], *, share: bool) -> list[Path]:
    from edgedec.devices.qnn_context import compile_context

    names = [soc.name for soc in socs]
    if share:
        (first, out), *others = graphs.items()
        return compile_context(first, out, names, share=dict(others))
    return [path for graph, out in graphs.items() for path in compile_context(graph, out, names)]


def _with_contexts(component: Component, contexts: dict[str, str]) -> Component:
    if not contexts:
        return component
    return replace(component, file=next(iter(contexts.values())), contexts=contexts)


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return FileEntry(path.stat().st_size, digest.hexdigest())
