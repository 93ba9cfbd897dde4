"""The ``onnxruntime-qnn`` wheel: ONNX Runtime's plugin for Qualcomm's NPU (HTP), and QNN itself.

On x86-64 its HTP library is an emulation that computes what the NPU does and takes its time.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from edgedec.devices.messages import tail
from edgedec.errors import DeviceError

PACKAGE = "onnxruntime-qnn"
INSTALL = "pip install 'edgedec[npu]'"
OLDEST = (2, 7)
"""The first version that was tested; MatMulNBits on the HTP is as young."""
_lock = threading.Lock()


def missing() -> str | None:
    """Why the NPU's runtime cannot be used here, in a sentence; None if it is installed."""
    if find_spec("onnxruntime_qnn") is None:
        if platform.system() == "Darwin":
            return f"there is no {PACKAGE} for macOS; use Linux or Windows"
        return f"{PACKAGE} is not installed: {INSTALL}"
    found = installed()
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return f"{PACKAGE} {found} is older than {wanted}: pip install -U {PACKAGE}"
    return None


def installed() -> str:
    """Version of the wheel, of ``0`` where it says none."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "0"


def sdk() -> str | None:
    """Version of QNN (QAIRT) in the wheel: what runs its context binaries must be as new."""
    import onnxruntime_qnn

    found = getattr(onnxruntime_qnn.build_and_package_info, "qnn_version", None)
    return found if isinstance(found, str) else None


def is_simulator() -> bool:
    """Whether what the wheel runs here is the emulation of an NPU."""
    return platform.machine().lower() in {"x86_64", "amd64"}


def load() -> tuple[list[Any], str]:
    """Make ONNX Runtime know the NPU.

    Returns:
        ONNX Runtime's devices for a session, and the path of the HTP library.

    Raises:
        DeviceError: it is not installed, or does not load here.
    """
    reason = missing()
    if reason is not None:
        raise DeviceError(f"the device 'qnn' is not available here: {reason}")
    with _lock:
        return _load()


@functools.cache
def _load() -> tuple[list[Any], str]:
    import onnxruntime
    import onnxruntime_qnn

    backend = onnxruntime_qnn.get_qnn_htp_path()
    name = onnxruntime_qnn.get_ep_name()
    try:
        with _silent_output():
            ctypes.CDLL(backend)
        if not any(device.ep_name == name for device in onnxruntime.get_ep_devices()):
            onnxruntime.register_execution_provider_library(
                name, onnxruntime_qnn.get_library_path()
            )
    except Exception as error:  # OSError, and ONNX Runtime's, which share no other base
        raise DeviceError(
            f"{PACKAGE} {installed()} does not load with ONNX Runtime {onnxruntime.__version__} "
            f"({tail(error)}): pip install -U onnxruntime {PACKAGE}"
        ) from error
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    npus = [d for d in devices if d.device.type == onnxruntime.OrtHardwareDeviceType.NPU]
    return (npus or devices)[:1], backend


@contextmanager
def _silent_output() -> Iterator[None]:
    """Send standard output nowhere: the emulation prints there when it is loaded."""
    try:
        saved = os.dup(1)
    except OSError:  # closed, so nothing can be printed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)
