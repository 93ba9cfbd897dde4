"""TensorRT's Python packages: the only file that imports them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from edgedec.errors import DeviceError, MissingDependencyError


@dataclass(frozen=True)
class Package:
    """A package of TensorRT's.

    Attributes:
        module: its name in Python.
        title: its name for people.
        least: the oldest version whose operators and names are known to serve (major, minor).
        install: a command that installs it.
    """

    module: str
    title: str
    least: tuple[int, int]
    install: str


PACKAGES = {
    # TensorScatter in place came with 10.15; plugins with kernels compiled ahead need 10.16.
    "tensorrt": Package("tensorrt", "TensorRT", (10, 16), "pip install 'edgedec[tensorrt]'"),
    # 1.2 brought what is needed to capture CUDA graphs.
    "tensorrt-rtx": Package(
        "tensorrt_rtx", "TensorRT-RTX", (1, 2), "pip install 'edgedec[tensorrt-rtx]'"
    ),
}
"""Device -> what it runs by."""


def load(device: str) -> Any:
    """The module of a device.

    Args:
        device: key of `PACKAGES`.

    Raises:
        MissingDependencyError: it is not installed, or one of its libraries is not.
        DeviceError: it is too old.
    """
    package = PACKAGES[device]
    try:
        module = importlib.import_module(package.module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"--device {device} needs {package.title}, which is not installed: {package.install}."
        ) from error
    except Exception as error:  # a library that is missing or of another machine, of any kind
        raise MissingDependencyError(
            f"{package.title} is installed and cannot be imported ({_line(error)}): "
            f"{package.install} once more, in an environment of its own."
        ) from error
    if version(module) < package.least:
        raise DeviceError(
            f"{package.title} {module.__version__} is too old for --device {device}, which needs "
            f"{'.'.join(map(str, package.least))} or later: {package.install} -U."
        )
    return module


def version(module: Any) -> tuple[int, int]:
    """Major and minor version of a module of TensorRT's."""
    major, minor = (int(part) for part in module.__version__.split(".")[:2])
    return major, minor


def titled(module: Any) -> str:
    """What a module is called, with its version, for messages."""
    titles = {package.module: package.title for package in PACKAGES.values()}
    return f"{titles[module.__name__]} {module.__version__}"


def missing(device: str) -> str | None:
    """Why a device's package cannot be used here, in a sentence; None if it can."""
    try:
        load(device)
    except (MissingDependencyError, DeviceError) as error:
        return str(error)
    return None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
