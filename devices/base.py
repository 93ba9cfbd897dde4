"""What a device is: something that can open a bundle's graphs. One file per device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgedec.errors import DeviceError, InputError
from edgedec.runtime.manifest import Component
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


DEVICES = {
    "cpu": "edgedec.devices.cpu",
    "qnn": "edgedec.devices.qnn",
    "openvino": "edgedec.devices.openvino",
}
"""Device name -> module with ``device(option, allow_fallback)``, imported when its device is asked
for; ``option`` is what follows the name after a colon, or None."""
STATIC = frozenset({"qnn", "openvino"})
"""Devices that run graphs of fixed shapes only (docs/npu.md)."""


def get_device(text: str, *, allow_fallback: bool = False) -> Device:
    """The device that a text names.

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
