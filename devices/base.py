"""What a device is: something that can open a bundle's graphs. One file per device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgedec.errors import DeviceError, InputError
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Component, Limits
from edgedec.runtime.resident.arena import Arena
from edgedec.runtime.session import Session

if TYPE_CHECKING:  # opening a bundle needs none of it
    import onnx_ir as ir

    from edgedec.devices.matrices import PackedMatrix
    from edgedec.devices.report import DeviceReport
    from edgedec.kernels.codebook_matmul import Compute
    from edgedec.quantize.matrices import Quantize


class Device(Protocol):
    """Opens graphs on one target."""

    @property
    def name(self) -> str:
        """What it is called in `DEVICES`."""

    def file(self, component: Component) -> str:
        """Which of a component's files it opens: its graph, or a compiled form of it.

        Raises:
            DeviceError: it can open none of them.
        """

    def fallback(self) -> str | None:
        """Why our operators run by their function bodies here; None where kernels run them."""

    def report(self) -> DeviceReport:
        """What the device offers on this machine."""

    def open(
        self, graph: Path, *, threads: int | None, shared: bool, records: Path | None = None
    ) -> Session:
        """Open a graph.

        Args:
            graph: an ``.onnx`` file of a checked bundle.
            threads: threads to compute with, None for the device's own choice.
            shared: other sessions run in turns with this one, so that its idle threads must not
                keep cores busy.
            records: what to begin the name of the file with that gets records of every operator
                (`Session.end_records`); None for none, as they take time.

        Raises:
            BundleError: the runtime refuses the graph.
            DeviceError: the device is not available here.
        """


class CodebookDevice(Device, Protocol):
    """A device whose kernels read codes."""

    def lower(
        self,
        models: Mapping[str, ir.Model],
        quantize: Quantize,
        *,
        compute: Compute,
        portable: bool,
    ) -> Mapping[str, Sequence[PackedMatrix]]:
        """Put codebook weights, and what else is faster here, into a model's graphs, in place.

        Args:
            models: component name -> model, with float32 weights.
            quantize: turns a matrix into codes.
            compute: how products are computed.
            portable: leave everything but the matrices in standard operators.

        Returns:
            For every component the matrices that it now holds as codes.
        """


class ResidentDevice(Protocol):
    """A device that keeps caches in memory of its own; it makes its graphs of a bundle's."""

    @property
    def name(self) -> str:
        """What it is called in `DEVICES`."""

    def fallback(self) -> str | None:
        """Why our operators run slower than they could here; None where nothing is lost."""

    def report(self) -> DeviceReport:
        """What the device offers on this machine."""

    def arena(self) -> Arena:
        """Its memory: the same for all that is opened in this process.

        Raises:
            MissingDeviceError: the device is not available here.
        """

    def open_resident(
        self,
        bundle: Bundle,
        component: str,
        limits: Limits,
        *,
        threads: int | None,
        records: Path | None = None,
    ) -> Session:
        """Open a component's graph, with caches of a fixed capacity (docs/bundle.md).

        Args:
            bundle: a checked bundle; its graphs are those for any device.
            component: of the bundle.
            limits: how far its graphs must reach.
            threads: of what runs on the host.
            records: as of `Device.open`.

        Raises:
            BundleError: the graph is damaged.
            DeviceError: the device cannot run it.
            MissingDeviceError: the device is not available here.
        """


DEVICES = {
    "cpu": "edgedec.devices.cpu",
    "qnn": "edgedec.devices.qnn",
    "openvino": "edgedec.devices.openvino",
    "tensorrt": "edgedec.devices.tensorrt",
    "tensorrt-rtx": "edgedec.devices.tensorrt_rtx",
    "cuda": "edgedec.devices.cuda",
}
"""Device name -> module with ``device(option, allow_fallback)``, imported when its device is asked
for; ``option`` is what follows the name after a colon, or None."""
STATIC = frozenset({"qnn", "openvino"})
"""Devices that run graphs of fixed shapes only (docs/npu.md)."""
RESIDENT = frozenset({"tensorrt", "tensorrt-rtx", "cuda"})
"""Devices that are a `ResidentDevice` (docs/gpu.md)."""


def get_device(text: str, *, allow_fallback: bool = False) -> Device:
    """The device that a text names; one of `RESIDENT` only to ask for its report.

    Args:
        text: ``NAME`` or ``NAME:OPTION``, such as ``qnn:sm8650``.
        allow_fallback: what a device cannot run may run on the CPU.

    Raises:
        InputError: no such device, or no such option of it.
    """
    name, colon, option = (part.strip() for part in text.partition(":"))
    if name not in DEVICES:
        raise InputError(f"there is no device {name!r}; there are: {', '.join(DEVICES)}.")
    if colon and not option:
        raise InputError(f"the device {text!r} ends in a colon: name an option, or leave it out.")
    module = importlib.import_module(DEVICES[name])
    device: Device = module.device(option or None, allow_fallback)
    return device


def is_resident(text: str) -> bool:
    """Whether a text as `get_device` takes it names a device of `RESIDENT`."""
    return text.partition(":")[0].strip() in RESIDENT


def resident_device(text: str, *, allow_fallback: bool = False) -> ResidentDevice:
    """The device of `RESIDENT` that a text names; arguments and errors as of `get_device`."""
    device = get_device(text, allow_fallback=allow_fallback)
    found: ResidentDevice = device  # type: ignore[assignment]  # what its module makes
    return found


def codebook_device(name: str) -> CodebookDevice:
    """The device of that name, whose kernels read codes.

    Raises:
        InputError: no such device.
        DeviceError: one that reads none.
    """
    device = get_device(name)
    if not hasattr(device, "lower"):
        raise DeviceError(f"the device {name!r} has no kernels that read codes: use cpu.")
    found: CodebookDevice = device  # type: ignore[assignment]  # it has what was missing
    return found
