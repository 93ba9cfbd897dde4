"""What a device is: something that can open a bundle's graphs. One file per device."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from edgedec.errors import DeviceError
from edgedec.runtime.session import Session


class Device(Protocol):
    """Opens graphs for one target."""

    name: str

    def open(self, graph: Path, *, threads: int | None, shared: bool) -> Session:
        """Open a graph.

        Args:
            graph: an ``.onnx`` file of a checked bundle.
            threads: threads to compute with, None for the device's own choice.
            shared: other sessions run in turns with this one, so that its idle threads must not
                keep cores busy.

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
