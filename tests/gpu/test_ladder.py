"""Every step of the ladders, on a GPU that is not there, and on one where there is one."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.gpu.fakes import onnx as fake_onnx
from tests.gpu.fakes.cuda import FakeCuda
from tests.gpu.fakes.trt import FakeTrt

from edgedec.devices import doctor
from edgedec.devices.finding import Finding
from edgedec.devices.gpu import ladder, rungs
from edgedec.devices.gpu.ground import Ground
from edgedec.devices.gpu.ladder import LADDERS, climb
from edgedec.kernels import ptx
from edgedec.kernels.words import reference


def found(device: str) -> dict[str, Finding]:
    """What every step says, by its name; the order is the ladder's."""
    steps = {str(finding.step): finding for finding in climb(device)}
    assert list(steps) == [rung.name for rung in LADDERS[device]]
    return steps


def states(device: str) -> dict[str, str]:
    return {name: finding.state for name, finding in found(device).items()}


def leave_out(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Take steps out of the ladders."""
    for device, steps in LADDERS.items():
        patch.setitem(LADDERS, device, tuple(rung for rung in steps if rung.name not in names))


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the steps that decode."""
    leave_out(monkeypatch, "words", "coded", "standard")


@pytest.fixture
def one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out all but one of the steps that decode: they differ in the bundle only."""
    leave_out(monkeypatch, "words", "standard")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with codes, exported once."""
    return Ground("cuda", str(tmp_path_factory.mktemp("coded"))).coded


@pytest.fixture
def coded(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ground, "coded", exported)


@pytest.fixture
def kernels(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels whose work Python does; their launches are checked."""

    def kernel(tactic: ptx.Tactic, bits: int, dtype: ptx.Dtype) -> Any:
        made = ptx.Kernel(
            f"codebook_{tactic}_{bits}_{dtype}", "", "", tactic, bits, dtype, 1, 16, 4, 0, ()
        )
        cuda.kernels[made.name] = lambda *launch: multiply(made, *launch)
        text = SimpleNamespace(ptx=lambda: f".entry {made.name}")
        return SimpleNamespace(
            **{**vars(made), "grid": made.grid, "threads": made.threads, **vars(text)}
        )

    monkeypatch.setattr(ptx, "kernel", kernel)


def multiply(
    kernel: ptx.Kernel,
    grid: tuple[int, int, int],
    threads: int,
    shared: int,
    *arguments: int,
) -> None:
    """What the kernels of codes compute, in host memory."""
    x, words, levels, groups, scales, m, n, k, y = arguments
    assert (grid, threads, shared) == (kernel.grid(m, n), kernel.threads, kernel.shared)

    def at(address: int, dtype: str, *shape: int) -> NDArray[Any]:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory: Any = (ctypes.c_uint8 * nbytes).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    tables = at(groups, "i4", -(-n // 16))
    at(y, "f2", m, n)[...] = reference(
        at(x, "f2", m, k),
        at(words, "i4", n, -(-k // 32) * kernel.bits),
        at(levels, "f2", int(tables.max()) + 1, 1 << kernel.bits),
        tables,
        at(scales, "f4", n),
    )


@pytest.mark.usefixtures("kernels", "coded", "one_model")
def test_tensorrt(trt: FakeTrt) -> None:
    assert not [f for f in found("tensorrt").values() if f.state != "ok"]
    assert trt.registered


def test_tensorrt_rtx(rtx: FakeTrt, no_models: None) -> None:
    steps = found("tensorrt-rtx")
    assert {finding.state for finding in steps.values()} == {"ok"}
    assert all(finding.seconds is not None for finding in steps.values())
    assert "TensorRT-RTX 1.7.1.116" in steps["library"].what


@pytest.mark.usefixtures("coded", "one_model")
def test_cuda(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    opened = fake_onnx.install(monkeypatch)
    assert not [f for f in found("cuda").values() if f.state != "ok"]
    assert all(inference.runs for inference in opened)


def test_what_needs_a_gpu_is_not_reached_without_one(
    rtx: FakeTrt, cuda: FakeCuda, no_models: None
) -> None:
    cuda.gpus = 0
    steps = found("tensorrt-rtx")
    assert [steps[name].state for name in ("library", "builder", "driver")] == [
        "ok",
        "ok",
        "missing",
    ]
    others = [
        finding for name, finding in steps.items() if name not in {"library", "builder", "driver"}
    ]
    assert {finding.state for finding in others} == {"not reached"}
    assert "nvidia-smi" in steps["driver"].what


def test_a_package_that_is_not_there_comes_with_its_command(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, no_models: None
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    steps = found("tensorrt")
    assert steps["library"].state == "missing"
    assert steps["library"].command == "pip install 'edgedec[tensorrt]'"
    assert steps["driver"].state == "ok"
    assert steps["plugin"].state == "not reached"


def wrong(name: str, array: NDArray[Any]) -> NDArray[Any]:
    return array + np.float32(0.25) if array.dtype.kind == "f" and "present" not in name else array


def test_wrong_numbers_are_found(trt: FakeTrt, kernels: None, no_models: None) -> None:
    trt.damage = wrong
    steps = states("tensorrt")
    for name in ("plugin", "native", "profiles"):
        assert steps[name] == "failed", name
    for name in ("plugins", "cache", "graph"):
        assert steps[name] == "not reached", name
    assert steps["kernels"] == "ok"


def test_a_recording_that_fails_is_found(
    trt: FakeTrt, cuda: FakeCuda, kernels: None, no_models: None
) -> None:
    cuda.no_recording = True
    steps = found("tensorrt")
    assert steps["cache"].state == "ok"
    assert steps["graph"].state == "failed"
    assert "without a CUDA graph" in steps["graph"].what


def test_a_graph_that_tensorrt_refuses_is_found_with_its_reason(
    trt: FakeTrt, kernels: None, no_models: None
) -> None:
    trt.refuse = "no implementation for product"
    steps = found("tensorrt")
    assert steps["plugin"].state == steps["native"].state == "failed"
    assert "no implementation for product" in steps["plugin"].what


def test_other_words_than_the_cpus_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Generator:
        def __init__(self, device: str) -> None:
            self.device = device

        def generate(self, words: tuple[str, ...]) -> list[Any]:
            return [
                SimpleNamespace(tokens=[self.device if word == "edge" else word]) for word in words
            ]

    monkeypatch.setattr("edgedec.builtin.resolve_bundle", Path)
    monkeypatch.setattr("edgedec.runtime.generator.load", lambda _, device: Generator(device))
    with pytest.raises(Exception, match=r"1 of 8 words are not what the CPU says, such as 'edge'"):
        rungs.words(Ground("tensorrt", "nowhere"))


def test_every_need_is_a_step_before() -> None:
    for steps in LADDERS.values():
        names = [rung.name for rung in steps]
        assert len(set(names)) == len(names)
        for index, rung in enumerate(steps):
            assert set(rung.needs) <= set(names[:index])


def ladder_that(code: str, tmp_path: Path, patch: pytest.MonkeyPatch) -> Iterator[Finding]:
    """What the doctor makes of a process that does this in the place of the ladder."""
    script = tmp_path / "ladder.py"
    script.write_text(f"import json, os, sys\n{code}\n")
    start = subprocess.Popen

    def other(command: list[str], **options: Any) -> subprocess.Popen[str]:
        assert command[1:3] == ["-m", ladder.__name__]
        return start([sys.executable, str(script)], **options)

    patch.setattr("subprocess.Popen", other)
    (route,) = doctor.examine(["tensorrt-rtx"])
    yield from route.findings


def test_a_process_that_ends_is_a_failed_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        {"begin": "library"},
        {"found": {"state": "ok", "what": "there", "step": "library", "seconds": 0.1}},
        {"begin": "builder"},
    ]
    lines = "\n".join(json.dumps(event) for event in said)
    code = f"print('a library prints this')\nprint({lines!r}, flush=True)\nos.abort()"
    steps = list(ladder_that(code, tmp_path, monkeypatch))
    assert [finding.step for finding in steps] == [rung.name for rung in LADDERS["tensorrt-rtx"]]
    assert [finding.state for finding in steps[:3]] == ["ok", "failed", "not reached"]
    assert "the process ended (SIGABRT)" in steps[1].what


def test_a_process_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list(ladder_that("sys.exit('no such module')", tmp_path, monkeypatch))
    assert steps[0].state == "failed"
    assert "exit code 1" in steps[0].what
    assert "no such module" in steps[0].what
    assert {finding.state for finding in steps[1:]} == {"not reached"}


@pytest.mark.gpu
@pytest.mark.parametrize("device", LADDERS)
def test_on_this_machine(device: str) -> None:
    """What `edgedec devices --doctor` does; skipped where the device's package is not installed."""
    (route,) = doctor.examine([device])
    first = route.findings[0]
    if first.state == "missing":
        pytest.skip(first.what)
    for finding in route.findings:
        assert finding.state == "ok", finding
