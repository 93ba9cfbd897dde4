"""``--device auto``: the first way that works on this machine, from the fastest to the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from edgedec.errors import DeviceError, MissingDependencyError

AUTO = "auto"
"""What is written in a device's place."""
CANDIDATES = ("tensorrt:plugin", "tensorrt:native", "tensorrt-rtx", "cuda", "cpu")
"""Devices as `edgedec.devices.base.get_device` takes them, the one to try first first."""
logger = logging.getLogger(__name__)
T = TypeVar("T")


def candidates() -> tuple[str, ...]:
    """The devices that ``auto`` tries, in this order; the last one is there on every machine."""
    return CANDIDATES


def first_that_works(attempt: Callable[[str], T], devices: Sequence[str] = CANDIDATES) -> T:
    """What an attempt returns for the first device that it succeeds with.

    Every device that is left is logged with its reason, as a warning: a user who waits for a GPU's
    speed must see why the CPU runs.

    Args:
        attempt: opens a whole model on a device; what it opened must be gone when it raises.
        devices: to try, in this order; at least one.

    Raises:
        DeviceError: or any other error of the last device.
        EdgedecError: the model or the input is at fault, whatever the device.
    """
    device, *others = devices
    if not others:
        return attempt(device)
    try:
        return attempt(device)
    except (DeviceError, MissingDependencyError) as error:
        logger.warning("%s", stepping_down(device, others[0], error))
    return first_that_works(attempt, others)


def stepping_down(device: str, following: str, error: Exception) -> str:
    """One sentence that says why a device is left for the following one."""
    return f"{device} is left for {following}: {str(error).rstrip('.')}."
