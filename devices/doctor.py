"""What is there and what is missing on the ways to an NPU, for `edgedec devices --doctor`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edgedec.errors import EdgedecError

State = Literal["ok", "missing", "untested"]


@dataclass(frozen=True)
class Finding:
    """One thing that a route needs.

    Attributes:
        state: whether it is there; untested where it may be.
        what: a sentence without its full stop.
        command: the one command that adds it; None where it is there, or no command adds it.
    """

    state: State
    what: str
    command: str | None = None


@dataclass(frozen=True)
class Route:
    """A way to run bundles on an NPU: the name of its device, what that is, what was found."""

    device: str
    title: str
    findings: tuple[Finding, ...]


def examine() -> list[Route]:
    """Look at every route; this loads what is installed and runs a graph of one node on it."""
    return [
        Route(device, title, tuple(_until_missing(find)))
        for device, (title, find) in ROUTES.items()
    ]


def _until_missing(find: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What follows something missing cannot be looked at."""
    for finding in find():
        yield finding
        if finding.state == "missing":
            return


def _runtime() -> Finding:
    import onnxruntime

    return Finding("ok", f"ONNX Runtime {onnxruntime.__version__}")


def _qualcomm() -> Iterator[Finding]:
    from edgedec.devices import qnn_library, qnn_session
    from edgedec.devices.socs import DEFAULT_SOC, find_soc

    yield _runtime()
    reason = qnn_library.missing()
    if reason is not None:
        what, _, command = reason.partition(": ")
        yield Finding("missing", what, command or None)
        return
    yield Finding("ok", f"{qnn_library.PACKAGE} {qnn_library.installed()} is installed")
    try:
        qnn_library.load()
    except EdgedecError as error:
        what, _, command = str(error).rpartition(": ")
        yield Finding("missing", what, command)
        return
    machine = "the simulator of an NPU" if qnn_library.is_simulator() else "the NPU"
    if qnn_session.works([find_soc(DEFAULT_SOC)]):
        yield Finding("ok", f"{machine} runs a graph (as {DEFAULT_SOC})")
    elif qnn_library.is_simulator():
        command = f"pip install --force-reinstall {qnn_library.PACKAGE}"
        yield Finding("missing", f"{machine} does not run a graph", command)
    else:
        what = f"{machine} does not run a graph as {DEFAULT_SOC}: name your own SoC"
        yield Finding("untested", what, "edgedec run BUNDLE --device qnn:SOC")
    yield Finding(
        "ok", f"contexts can be compiled; a phone loads them with QNN {qnn_library.sdk()} or newer"
    )
    if qnn_library.is_simulator():
        yield Finding("untested", "hardware: this processor has no NPU of Qualcomm's")


def _intel() -> Iterator[Finding]:
    from edgedec.devices import openvino

    yield _runtime()
    if openvino.missing() is not None:
        what = "this environment's ONNX Runtime is built without OpenVINO, which has one of its own"
        yield Finding("missing", what, openvino.INSTALL)
        return
    kinds = openvino.available()
    yield Finding("ok", f"OpenVINO finds: {', '.join(kinds)}")
    if "NPU" not in kinds:
        driver = "https://github.com/intel/linux-npu-driver"
        if platform.system() == "Windows":
            driver = "Intel's NPU driver for Windows"
        yield Finding("missing", f"an NPU: it takes a Core Ultra processor and a driver ({driver})")
        return
    yield Finding("untested", "an NPU is there; edgedec was never run on one")


ROUTES: dict[str, tuple[str, Callable[[], Iterator[Finding]]]] = {
    "qnn": ("Qualcomm's NPU (HTP), or its simulator", _qualcomm),
    "openvino": ("Intel's CPU, GPU or NPU by OpenVINO", _intel),
}
"""Device -> what it is, and what looks at it."""
