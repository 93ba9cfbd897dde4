"""`edgedec devices`: which operators have kernels here, and why others have not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from click.testing import Result

from edgedec.cli.devices import ALL, ROUTES
from edgedec.devices import doctor
from edgedec.devices.base import DEVICES, RESIDENT
from edgedec.devices.doctor import Route
from edgedec.devices.finding import Finding
from edgedec.devices.report import DeviceReport, OperatorReport
from edgedec.kernels.library import library_path, refused
from edgedec.runtime.operators import ATTRIBUTES

Invoke = Callable[..., Result]

needs_library = pytest.mark.skipif(
    library_path() is None or refused(onnxruntime.__version__) is not None,
    reason="needs the operator library",
)


def report(invoke: Invoke) -> dict[str, Any]:
    """The first device, which is the CPU."""
    result = invoke("devices", "--json")
    assert result.exit_code == 0
    found, *others = json.loads(result.stdout)
    for one in (found, *others):
        assert set(one) == {field.name for field in fields(DeviceReport)}
    assert [other["device"] for other in others] == [*DEVICES][1:]
    assert not any(other["operators"] for other in others)
    assert [operator["operator"] for operator in found["operators"]] == list(ATTRIBUTES)
    for operator in found["operators"]:
        assert set(operator) == {field.name for field in fields(OperatorReport)}
    return dict(found)


@needs_library
def test_the_best_that_the_library_has(invoke: Invoke) -> None:
    found = report(invoke)
    assert (found["device"], found["available"], found["reason"]) == ("cpu", True, None)
    assert found["runtime"] == f"ONNX Runtime {onnxruntime.__version__}"
    assert found["library"] == str(library_path())
    assert found["instruction_sets"][-1] == "scalar"
    for operator in found["operators"]:
        assert operator["runs_as"] == "kernel"
        assert operator["instruction_set"] == found["instruction_sets"][0]
        assert operator["reason"] is None
    text = invoke("devices").stdout
    best = found["instruction_sets"][0]
    assert any(line.split() == ["CodebookMatMul", "kernel", best] for line in text.splitlines())


def elsewhere(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the library chooses once in each."""
    command = [sys.executable, "-m", "edgedec", "devices", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@needs_library
def test_a_slower_one_that_was_asked_for(invoke: Invoke) -> None:
    best = report(invoke)["instruction_sets"][0]
    found, *_ = json.loads(elsewhere("--json", EDGEDEC_ISA="scalar").stdout)
    for operator in found["operators"]:
        assert (operator["runs_as"], operator["instruction_set"]) == ("kernel", "scalar")
        if best != "scalar":
            assert operator["reason"] == f"{best} would be faster; EDGEDEC_ISA asks for scalar."


@needs_library
def test_a_wish_that_cannot_be_met() -> None:
    done = elsewhere(EDGEDEC_ISA="altivec")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: EDGEDEC_ISA=altivec cannot run here; this machine has: ")


def test_a_processor_without_any(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.kernels.library.register", lambda _: None)
    monkeypatch.setattr(
        "edgedec.devices.kernel_info.instruction_sets", lambda _: ("scalar", ("scalar",))
    )
    (operator, *_) = report(invoke)["operators"]
    assert (operator["runs_as"], operator["instruction_set"]) == ("kernel", "scalar")
    assert operator["reason"].startswith("this processor has no instruction set")


@pytest.mark.usefixtures("no_library")
def test_no_library(invoke: Invoke) -> None:
    found = report(invoke)
    assert (found["available"], found["library"]) == (True, None)
    assert found["instruction_sets"] == []
    for operator in found["operators"]:
        assert (operator["runs_as"], operator["instruction_set"]) == ("function body", None)
        assert "installed without its operator library" in operator["reason"]
    text = invoke("devices").stdout
    assert text.count("without its operator library") == 1
    assert "CodebookMatMul   function body\n" in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_npus_that_are_not_installed(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.devices.qnn_library.find_spec", lambda _: None)
    monkeypatch.setattr("edgedec.devices.qnn_library.OLDEST_PYTHON", (3, 0))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    reports = {
        report["device"]: report for report in json.loads(invoke("devices", "--json").stdout)
    }
    qnn, openvino = reports["qnn"], reports["openvino"]
    assert (qnn["available"], qnn["runtime"]) == (False, None)
    assert qnn["reason"] == "onnxruntime-qnn is not installed: pip install 'edgedec[npu]'"
    assert not openvino["available"]
    assert "onnxruntime-openvino" in openvino["reason"]

    # the steps of the others are in tests/gpu
    kept = {name: route for name, route in doctor.ROUTES.items() if name not in RESIDENT}
    monkeypatch.setattr(doctor, "ROUTES", kept)
    result = invoke("devices", "--doctor")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    missing = lines.index("  missing   onnxruntime-qnn is not installed")
    assert lines[missing + 1].strip() == "$ pip install 'edgedec[npu]'"
    assert lines[missing + 2] == ""  # what follows cannot be known
    assert lines[-1].strip().endswith("pip install onnxruntime-openvino")
    assert all(line == line.rstrip() for line in lines)


def test_gpus_say_that_nothing_was_ever_executed_on_one(invoke: Invoke) -> None:
    for found in json.loads(invoke("devices", "--json").stdout):
        if found["device"] in RESIDENT:
            assert found["verified"].startswith("never ")
            assert "GPU" in found["verified"]
        else:
            assert found["verified"] is None
    assert invoke("devices").stdout.count("\nverified ") == len(RESIDENT)


def test_the_doctor_knows_every_way_that_is_no_base_install() -> None:
    assert tuple(doctor.ROUTES) == ROUTES
    assert {*ROUTES} == DEVICES.keys() - {"cpu"}
    assert ALL not in ROUTES


FINDINGS = {
    "fine": (Finding("ok", "a GPU", step="driver", seconds=0.25),),
    "absent": (
        Finding("ok", "a package", step="library", seconds=1.0),
        Finding("missing", "a driver", "pip install driver", step="driver", seconds=0.04),
        Finding("not reached", "words", step="words"),
    ),
    "broken": (
        Finding("missing", "a package", step="library", seconds=0.0),
        Finding("failed", "a kernel", step="kernels", seconds=2.0),
    ),
}


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Finding, ...]]:
    """What the doctor finds on the way `tensorrt-rtx`: the tuple at ``found``."""
    chosen = {"found": FINDINGS["fine"]}

    def examine(devices: list[str] | None) -> list[Route]:
        return [Route(device, "GPUs", chosen["found"]) for device in devices or ["cuda", "qnn"]]

    monkeypatch.setattr(doctor, "examine", examine)
    return chosen


@pytest.mark.parametrize(("found", "code"), [("fine", 0), ("absent", 3), ("broken", 1)])
def test_a_doctor_for_one_device_ends_with_what_it_found(
    invoke: Invoke,
    examined: dict[str, tuple[Finding, ...]],
    tmp_path: Path,
    found: str,
    code: int,
) -> None:
    examined["found"] = FINDINGS[found]
    report = tmp_path / "report.json"
    result = invoke("devices", "--doctor", "tensorrt-rtx", "-o", str(report))
    assert result.exit_code == code
    assert invoke("devices", "--doctor").exit_code == 0  # some way is always missing
    (route,) = json.loads(report.read_text())
    assert route == json.loads(json.dumps(asdict(Route("tensorrt-rtx", "GPUs", FINDINGS[found]))))
    assert result.stdout.splitlines()[0] == "tensorrt-rtx: GPUs"
    for finding in FINDINGS[found]:
        (line,) = [line for line in result.stdout.splitlines() if finding.what in line]
        assert line.split(finding.what)[0].strip() == finding.state
        assert line.endswith(" s)") == (finding.seconds is not None)


def test_a_report_that_cannot_be_written_is_a_sentence(
    invoke: Invoke, examined: dict[str, tuple[Finding, ...]], tmp_path: Path
) -> None:
    result = invoke("devices", "--doctor", "-o", str(tmp_path / "none" / "report.json"))
    assert result.exit_code == 2
    assert "report.json" in result.stderr


def test_a_device_that_the_doctor_does_not_know(invoke: Invoke) -> None:
    result = invoke("devices", "--doctor", "tpu")
    assert result.exit_code == 2
    assert "tensorrt-rtx" in result.stderr


@pytest.mark.parametrize(("system", "said"), [("Darwin", "macOS"), ("Linux", "this Python")])
def test_no_wheel_for(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, system: str, said: str
) -> None:
    monkeypatch.setattr("edgedec.devices.qnn_library.find_spec", lambda _: None)
    monkeypatch.setattr("edgedec.devices.qnn_library.OLDEST_PYTHON", (99, 0))
    monkeypatch.setattr("platform.system", lambda: system)
    (qnn,) = json.loads(invoke("devices", "--json", "--doctor", "qnn").stdout)
    finding = qnn["findings"][-1]
    assert (finding["state"], finding["command"]) == ("missing", None)
    assert said in finding["what"]
