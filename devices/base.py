"""What a device is: something that can open a bundle's graphs. One file per device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgedec.errors import DeviceError
from edgedec.runtime.session import Session

if TYPE_CHECKING:  # opening a bundle needs none of it
    import onnx_ir as ir

    from edgedec.devices.matrices import PackedMatrix
    from edgedec.devices.report import DeviceReport
    from edgedec.kernels.codebook_matmul import Compute
    from edgedec.quantize.matrices import Quantize


class Device(Protocol):
    """Lowers and opens graphs for one target."""

    name: str

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


DEVICES = {"cpu": "edgedec.devices.cpu"}
"""Device name -> module with ``device()``; a module is imported when its device is asked for."""


def get_device(name: str) -> Device:
    """The device of that name.

    Raises:
        DeviceError: no such device, or not available here.
    """
    if name not in DEVICES:
        raise DeviceError(f"there is no device {name!r}; there are: {', '.join(DEVICES)}.")
    device: Device = importlib.import_module(DEVICES[name]).device()
    return device
