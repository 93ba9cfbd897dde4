"""NVIDIA GPUs through TensorRT-RTX, which pip installs from PyPI, and which takes no plugins."""

from __future__ import annotations

from edgedec.devices.gpu.engine_device import EngineDevice
from edgedec.errors import InputError

VERIFIED = (
    "never executed on a GPU: engines were built by TensorRT-RTX itself, and run with a stand-in "
    "for it"
)


def device(option: str | None, allow_fallback: bool) -> EngineDevice:  # noqa: ARG001 - there is none
    """TensorRT-RTX.

    Args:
        option: there is none.
        allow_fallback: without effect: an engine runs as a whole.

    Raises:
        InputError: there is no such option.
    """
    if option not in {None, "native"}:
        raise InputError(
            f"the device 'tensorrt-rtx' has no option {option!r}: write --device tensorrt-rtx."
        )
    return EngineDevice(
        "tensorrt-rtx", "TensorRT-RTX", ("native",), portable=True, verified=VERIFIED
    )
