"""What is there and what is missing on the ways to a GPU or NPU: `edgedec devices --doctor`."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile

from edgedec.devices.finding import Finding
from edgedec.errors import EdgedecError


@dataclass(frozen=True)
class Route:
    """A way to run bundles: the name of its device, what that is, what was found."""

    device: str
    title: str
    findings: tuple[Finding, ...]


def examine(devices: Sequence[str] | None = None) -> list[Route]:
    """Look at routes; this loads what is installed, and runs small graphs and models on it.

    Args:
        devices: keys of `ROUTES`; None for all.
    """
    return [
        Route(device, ROUTES[device][0], tuple(_until_missing(ROUTES[device][1])))
        for device in (ROUTES if devices is None else devices)
    ]


def _until_missing(find: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What follows something missing cannot be looked at; steps of a ladder say so themselves."""
    for finding in find():
        yield finding
        if finding.state == "missing" and finding.step is None:
            return


def _runtime() -> Finding:
    """The ONNX Runtime, of which there must be one."""
    import onnxruntime

    from edgedec.devices.onnxruntimes import clash

    broken = clash()
    if broken is not None:
        return Finding("missing", *broken)
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


def _nvidia(device: str) -> Iterator[Finding]:
    """Climb a ladder in another process: a driver or a library may end it."""
    from edgedec.devices.gpu.ladder import LADDERS, unreached

    left = {rung.name: rung for rung in LADDERS[device]}
    current = ""
    command = [sys.executable, "-m", "edgedec.devices.gpu.ladder", device]
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,  # a pipe would fill up
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        assert child.stdout is not None
        for event in filter(None, map(_event, child.stdout)):
            if "begin" in event:
                current = str(event["begin"])
            else:
                finding = Finding(**event["found"])  # type: ignore[arg-type]  # as it was written
                left.pop(str(finding.step))
                yield finding
        status = child.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if status:
        reason = f": {said[-1][:300].rstrip('.')}" if said else ""
        rung = left.pop(current, None) or next(iter(left.values()), None)
        title = "the end of the process" if rung is None else rung.title
        what = f"{title}: the process ended ({_ending(status)}){reason}"
        step = "end" if rung is None else rung.name
        left.pop(step, None)
        yield Finding("failed", what, step=step)
    yield from map(unreached, left.values())


def _event(line: str) -> dict[str, dict[str, object]] | None:
    """What a line of a ladder says; None of a line that a library printed."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.keys() & {"begin", "found"} else None


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"


ROUTES: dict[str, tuple[str, Callable[[], Iterator[Finding]]]] = {
    "tensorrt": ("NVIDIA GPUs by TensorRT", partial(_nvidia, "tensorrt")),
    "tensorrt-rtx": ("NVIDIA GPUs by TensorRT-RTX", partial(_nvidia, "tensorrt-rtx")),
    "cuda": ("NVIDIA GPUs by ONNX Runtime", partial(_nvidia, "cuda")),
    "qnn": ("Qualcomm's NPU (HTP), or its simulator", _qualcomm),
    "openvino": ("Intel's CPU, GPU or NPU by OpenVINO", _intel),
}
"""Device -> what it is, and what looks at it."""
