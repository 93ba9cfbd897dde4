"""The ``onnxruntime-qnn`` wheel: ONNX Runtime's plugin for Qualcomm's NPU (HTP), and QNN itself.

There are wheels for Linux and Windows on x86-64 and arm64. On x86-64 the HTP library is an
emulation that computes what the NPU does and takes its time.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgedec.devices.messages import tail
from edgedec.errors import MissingDeviceError

PACKAGE = "onnxruntime-qnn"
INSTALL = "pip install 'edgedec[npu]'"
OLDEST = (2, 7)
"""The first version that was tested; MatMulNBits on the HTP is as young."""
OLDEST_PYTHON = (3, 11)
_lock = threading.Lock()


def missing() -> str | None:
    """Why the NPU's runtime cannot be used here, in a sentence; None if it is installed."""
    if find_spec("onnxruntime_qnn") is None:
        if platform.system() == "Darwin":
            return f"there is no {PACKAGE} for macOS; use Linux or Windows"
        if sys.version_info < OLDEST_PYTHON:
            return f"there is no {PACKAGE} for this Python; use 3.11 or later"
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
    """Whether what the wheel runs here is the emulation of an NPU.

    Libraries for hardware come with a stub for every version of the HTP, through which they talk to
    it. The processor would not tell: Windows on Arm also runs programs for x86-64.
    """
    import onnxruntime_qnn

    folder = Path(onnxruntime_qnn.get_qnn_htp_path()).parent
    return not any(folder.glob("*QnnHtpV*Stub.*"))


def load() -> tuple[list[Any], str]:
    """Make ONNX Runtime know the NPU.

    Returns:
        ONNX Runtime's devices for a session, and the path of the HTP library.

    Raises:
        MissingDeviceError: it is not installed, or does not load here.
    """
    reason = missing()
    if reason is not None:
        raise MissingDeviceError(f"the device 'qnn' is not available here: {reason}")
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
        raise MissingDeviceError(
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
