"""Graphs for a GPU on the CPU: to look at what they compute, not to be fast."""

from __future__ import annotations

from pathlib import Path

from edgedec.devices.base import get_device
from edgedec.devices.gpu.lowering import resident_graph, save_resident
from edgedec.devices.options import session_options
from edgedec.errors import DeviceError
from edgedec.export.feeding import Start
from edgedec.export.places import CPU, Place
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.manifest import Limits
from edgedec.runtime.model import open_model
from edgedec.runtime.resident.arena import Arena, HostArena
from edgedec.runtime.session import OnnxSession, Session, first_line
from edgedec.runtime.steps import Steps


class HostOpener:
    """Opens the components that a GPU would run as it would have them, but by ONNX Runtime's CPU.

    Args:
        bundle: whose files are written.
        place: the parts that the GPU would run; the others are opened as they are.
        limits: how far graphs reach.
        work: an empty folder.

    Attributes:
        limits: as given.
    """

    def __init__(self, bundle: Bundle, place: Place, limits: Limits, work: Path) -> None:
        self.limits = limits
        self._bundle, self._place, self._work = bundle, place, work
        self._arena = HostArena()

    def arena(self, component: str) -> Arena | None:
        """Memory of fixed places, for what the GPU would run."""
        return self._arena if self._is_lowered(component) else None

    def open(self, component: str) -> Session:
        """Open a component.

        Raises:
            InputError: it cannot be lowered.
            DeviceError: ONNX Runtime refuses what was made of it.
        """
        bundle = self._bundle
        if not self._is_lowered(component):
            file = bundle.path(bundle.manifest.components[component].file)
            return get_device(CPU).open(file, threads=None, shared=True)
        import onnxruntime

        resident = resident_graph(bundle, component, self.limits, "cuda")
        folder = self._work / component
        folder.mkdir()
        path = save_resident(resident, folder)
        del resident  # its weights would be in memory twice
        options = session_options(None, shared=True, records=None)
        try:
            inference = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise DeviceError(
                f"ONNX Runtime refuses what was made of {component} for the GPU "
                f"({first_line(error)}): export with --device cpu, and please report this "
                "checkpoint."
            ) from error
        return OnnxSession(component, inference)

    def _is_lowered(self, component: str) -> bool:
        return self._place.device_of(component == self._bundle.manifest.encoder) != CPU


def start_on_host(bundle: Bundle, place: Place, limits: Limits, work: Path) -> Start:
    """Open all components of a bundle; what begins to decode one row with them.

    Args:
        bundle: whose files are written.
        place: the parts that the GPU would run.
        limits: how far graphs reach.
        work: an empty folder.

    Raises:
        InputError: a component that cannot be lowered.
        BundleError: a graph that is not what docs/bundle.md says.
        DeviceError: ONNX Runtime refuses a graph.
    """
    opener = HostOpener(bundle, place, limits, work)
    model = open_model(bundle, opener)
    manifest = bundle.manifest
    # What only depth policies need is opened on first use, and checked then.
    for index, stage in enumerate(manifest.stages):
        for variant in stage.variants:
            model.components.stage(index, variant)
    if manifest.meta is not None:
        _ = model.components.meta
    if manifest.router is not None:
        _ = model.components.router
    pad = manifest.generation.pad_token_id or 0

    def start(source: tuple[int, ...] | None) -> Steps:
        sources = None if source is None else [list(source)]
        return model.start(sources, 1, pad=pad, clock=Clock())

    return start
