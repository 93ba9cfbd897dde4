"""Engines for programs without edgedec, and trial builds of what a bundle's graphs become."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edgedec.devices import tensorrt, tensorrt_rtx
from edgedec.devices.gpu import bindings
from edgedec.devices.gpu.driver import driver
from edgedec.devices.gpu.engine_cache import write_engine
from edgedec.errors import DeviceError, MissingDependencyError
from edgedec.export.bundle import Kind, Progress, write_file
from edgedec.export.places import CPU, Place
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import Interface, Limits, Source, Stage
from edgedec.runtime.schema import encode

logger = logging.getLogger(__name__)
RTX = "tensorrt-rtx"
MODULES = {"tensorrt": tensorrt, RTX: tensorrt_rtx}
ENGINES = Kind("folder of engines", "engines.json")
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class EngineFiles:
    """An engine of a component, and its facts: files beside ``engines.json``."""

    engine: str
    facts: str


@dataclass(frozen=True)
class EngineIndex:
    """What ``engines.json`` says, for programs that decode by themselves (docs/gpu.md).

    Attributes:
        schema_version: of this file's format.
        producer: edgedec and its version.
        device: what the engines are for.
        source, interface, encoder, stages, head, generation, limits: as in the bundle's manifest.
        engines: component -> its files. A component that the CPU runs has none.
    """

    schema_version: int
    producer: str
    device: str
    source: Source
    interface: Interface
    encoder: str | None
    stages: tuple[Stage, ...]
    head: str | None
    generation: GenerationConfig
    limits: Limits
    engines: dict[str, EngineFiles]


def refuse_unavailable(device: str) -> None:
    """Refuse to write engines where none can be built.

    Args:
        device: ``tensorrt`` or ``tensorrt-rtx``, which needs no GPU to build.

    Raises:
        DeviceError: there is no GPU, or TensorRT is too old.
        MissingDependencyError: TensorRT is not installed.
    """
    try:
        bindings.load(device)
        if device != RTX:
            driver()
    except (DeviceError, MissingDependencyError) as error:
        raise type(error)(
            f"--engines: {str(error).rstrip('.')}; or leave out --engines: they are then built "
            "where the bundle runs first."
        ) from error


def components_of(bundle: Bundle, place: Place) -> list[str]:
    """The components that the GPU runs."""
    manifest = bundle.manifest
    return [c for c in manifest.components if place.device_of(c == manifest.encoder) != CPU]


def write_engines(
    bundle: Bundle, place: Place, limits: Limits, folder: Path, progress: Progress
) -> None:
    """Build an engine of each component that the GPU runs, and write them with an index.

    Args:
        bundle: whose files are written.
        place: what the GPU runs.
        limits: how far engines shall reach.
        folder: an existing, empty folder.
        progress: told the fraction that is done.

    Raises:
        DeviceError: TensorRT cannot build one here.
        InputError: a graph that cannot be lowered.
    """
    device = MODULES[place.device].device(None, allow_fallback=False)
    names = components_of(bundle, place)
    files = {}
    for done, name in enumerate(names):
        progress("building engines", done / len(names))
        engine, facts = device.build(bundle, name, limits, device.forms[0])
        paths = write_engine(folder, f"{place.device}-{name}", engine, facts)
        for path in paths:
            path.chmod(0o644)  # what a cache keeps for its user is for everybody here
        files[name] = EngineFiles(*(path.name for path in paths))
    manifest = bundle.manifest
    index = EngineIndex(
        schema_version=SCHEMA_VERSION,
        producer=f"edgedec {version('edgedec')}",
        device=place.device,
        source=manifest.source,
        interface=manifest.interface,
        encoder=manifest.encoder,
        stages=manifest.stages,
        head=manifest.head,
        generation=manifest.generation,
        limits=limits,
        engines=files,
    )
    text = json.dumps(encode(index), indent=2, ensure_ascii=False) + "\n"
    write_file(folder / ENGINES.sign, text.encode())


def try_builds(bundle: Bundle, place: Place, limits: Limits, progress: Progress) -> None:
    """Let TensorRT-RTX build engines, where it is installed: it needs no GPU for that.

    What TensorRT itself would make of the graphs, only a machine with a GPU can tell; of its
    parser, much is the same.

    Args:
        bundle: whose files are written.
        place: what the GPU runs.
        limits: how far engines shall reach.
        progress: told the fraction that is done.

    Raises:
        DeviceError: the bundle is for TensorRT-RTX, which refuses a graph.
    """
    if bindings.missing(RTX) is not None:
        return
    device = tensorrt_rtx.device(None, allow_fallback=False)
    names = components_of(bundle, place)
    size = 0
    for done, name in enumerate(names):
        progress("verifying: engines of TensorRT-RTX", done / len(names))
        try:
            size += len(device.build(bundle, name, limits, "native")[0])
        except DeviceError as error:
            if place.device == RTX:
                raise
            logger.warning("TensorRT-RTX, which %s resembles: %s", place.device, error)
            return
    logger.info("TensorRT-RTX builds engines of all graphs: %.1f MB", size / 1e6)
