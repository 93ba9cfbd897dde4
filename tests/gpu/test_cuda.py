"""The device `cuda`, with ONNX Runtime's CPU provider in the place of the one for GPUs."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tests.gpu.fakes import onnx as fake_onnx
from tests.gpu.fakes.cuda import FakeCuda

from edgedec.devices import base, cuda, onnxruntimes
from edgedec.devices.cuda import Cuda, device
from edgedec.devices.gpu.cuda_session import CudaSession
from edgedec.devices.gpu.driver import CudaError
from edgedec.devices.gpu.engine_cache import EngineCache, key_of
from edgedec.devices.gpu.graph_cache import kept_graph
from edgedec.devices.gpu.lowering import Resident, resident_graph
from edgedec.devices.gpu.probes.attention import ATTENTION, attention
from edgedec.devices.gpu.probes.products import block_product, deviation, make_input
from edgedec.errors import (
    DeviceError,
    InputError,
    MissingDependencyError,
    MissingDeviceError,
)
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.generator import load
from edgedec.runtime.manifest import Limits
from edgedec.runtime.resident.limits import limits_of

WORDS = ("deployment", "edge", "a", "uncharacteristically")


@pytest.fixture
def opened(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> list[fake_onnx.Inference]:
    """What the device opens, on the CPU."""
    return fake_onnx.install(monkeypatch)


@pytest.fixture(scope="module")
def g2p() -> Path:
    from edgedec.builtin import resolve_bundle

    return resolve_bundle("g2p")


def test_g2p_has_the_tokens_of_the_cpu(opened: list[fake_onnx.Inference], g2p: Path) -> None:
    wanted = load(g2p, device="cpu").generate(WORDS)
    for beams in (1, 3):
        found = load(g2p, device="cuda").generate(WORDS, num_beams=beams)
        if beams == 1:
            assert [r.tokens for r in found] == [r.tokens for r in wanted]
    assert len(opened) == 4
    assert all(inference.runs for inference in opened)


def test_what_one_component_runs_on_the_cpu_fits_the_other(
    opened: list[fake_onnx.Inference], g2p: Path
) -> None:
    wanted = [r.tokens for r in load(g2p, device="cpu").generate(WORDS)]
    for text in ("encoder=cpu,decoder=cuda", "encoder=cuda,decoder=cpu"):
        found = load(g2p, device=text).generate(WORDS)
        assert [r.tokens for r in found] == wanted, text


def test_arrays_are_read_and_written_in_every_run(
    opened: list[fake_onnx.Inference], cuda: FakeCuda
) -> None:
    graph, matrix = block_product()
    session = Cuda().open_graph(graph, "blocks")
    x, y = make_input(3, 256), np.zeros((3, 192), np.float32)
    binding = session.bind({"x": x}, {"product.4.fp16": y})
    for factor in (1, 2, -1):
        x[...] = make_input(3, 256) * factor
        binding.run()
        assert deviation(y, x, matrix) < 1e-3


def test_steps_carry_what_a_step_gives_to_the_next(opened: list[fake_onnx.Inference]) -> None:
    from onnx import parser

    text = """
    <ir_version: 11, opset_import: ["": 24]>
    count (int64[B, 1] input_ids, int64[B] past_length)
        => (int64[B, 1] next_token, int64[B] next_past_length)
    {
        step = Constant <value = int64 {1}> ()
        next_token = Add (input_ids, input_ids)
        next_past_length = Add (past_length, step)
    }
    """.replace("next_past_length", "next_past_length")
    session = Cuda().open_graph(parser.parse_model(text).SerializeToString(), "count")
    tokens, lengths = np.array([[1], [3]]), np.array([5, 7])
    chosen = np.zeros((4, 2, 1), np.int64)
    carried = {"next_token": "input_ids", "next_past_length": "past_length"}
    given = {"input_ids": tokens, "past_length": lengths}
    binding = session.bind_steps(given, {"next_token": chosen}, carried, 4)
    for first in (1, 10):
        tokens[0] = first
        binding.run()
        assert chosen[:, 0, 0].tolist() == [first * 2**step for step in range(1, 5)]
        assert chosen[:, 1, 0].tolist() == [3 * 2**step for step in range(1, 5)]
    assert tokens.tolist() == [[10], [3]]
    assert lengths.tolist() == [5, 7]


@pytest.mark.parametrize("component", ["encoder", "decoder"])
def test_numbers_out_of_range_are_refused(
    opened: list[fake_onnx.Inference],
    g2p: Path,
    component: str,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
) -> None:
    """Also those that greedy search asks nobody for: the greatest of no numbers is token 0."""

    def spoiled(bundle: Bundle, name: str, limits: Limits) -> Resident:
        resident = resident_graph(bundle, name, limits, "cuda")
        for value in resident.model.graph.initializers.values():
            array = value.const_value.numpy() if value.const_value is not None else np.zeros(0)
            if name == component and array.ndim == 2 and array.dtype.kind == "f":
                value.const_value = ir.tensor(np.full_like(array, np.nan))
        return resident

    monkeypatch.setattr("edgedec.devices.cuda._lowered", spoiled)
    with pytest.raises(DeviceError, match=f"{component}.* computes nonsense .* is not finite"):
        load(g2p, device="cuda").generate(WORDS)
    assert cache.exists()


@pytest.fixture
def bundle(g2p: Path) -> Bundle:
    return open_bundle(g2p)


class Lowering:
    """Counts how often a graph is made."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.times = bundle, 0

    def __call__(self) -> Resident:
        self.times += 1
        return resident_graph(self.bundle, "encoder", limits_of(self.bundle.manifest), "cuda")


def test_a_graph_is_lowered_once_and_again_when_it_is_damaged(
    bundle: Bundle, tmp_path: Path
) -> None:
    cache, make = EngineCache(tmp_path), Lowering(bundle)
    limits = limits_of(bundle.manifest)
    options = {"device": "cuda", "runtime": "1", "gpu": None}
    key = key_of(bundle, "encoder", limits, form="cuda", **options)  # type: ignore[arg-type]
    graph, kept = kept_graph(cache, key, make)
    assert kept_graph(cache, key, make) == (graph, kept)
    assert make.times == 1
    for name in (*kept.files, "kept.json"):
        path = graph.parent / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        assert kept_graph(cache, key, make) == (graph, kept)
        path.unlink()
        assert kept_graph(cache, key, make) == (graph, kept)
    assert make.times == 1 + 2 * 3
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".new")]


def test_a_cache_that_cannot_be_written_is_a_sentence(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    key = key_of(
        bundle,
        "encoder",
        limits_of(bundle.manifest),
        device="cuda",
        form="cuda",
        runtime="1",
        gpu=None,
    )
    with pytest.raises(DeviceError, match="EDGEDEC_CACHE"):
        kept_graph(EngineCache(tmp_path / "file" / "engines"), key, Lowering(bundle))


PROCESS = """
import sys
sys.path.append(sys.argv[1])
import pytest
from tests.gpu.fakes import onnx
from tests.gpu.fakes.cuda import FakeCuda
sys.modules["cuda.bindings.driver"] = FakeCuda()
with pytest.MonkeyPatch.context() as patch:
    opened = onnx.install(patch)
    from edgedec.runtime.generator import load
    print(load("g2p", device="cuda").generate(["edge"])[0].tokens, len(opened))
print(*sys.modules)
"""


def test_what_is_cached_needs_no_lowering(root: Path, g2p: Path) -> None:
    load(g2p, device="cpu")
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, str(root)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines())
    (first, _), (second, modules) = outputs
    assert first == second
    assert not {"onnx_ir", "onnxscript", "torch", "triton", "onnx"} & {*modules.split()}


def test_without_the_provider_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    report = Cuda().report()
    assert not report.available
    assert cuda.INSTALL in str(report.reason)
    with pytest.raises(MissingDependencyError, match="onnxruntime-gpu"):
        Cuda().open_graph(b"", "none")


def test_two_onnx_runtimes_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(onnxruntimes, "installed", lambda: installed)
    what, command = onnxruntimes.clash() or ("", "")
    assert "onnxruntime and onnxruntime-gpu" in what
    assert command.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install ")
    assert "onnxruntime-gpu" in command.rpartition("&&")[2]
    assert str(Cuda().report().reason).startswith(what)
    installed.pop("onnxruntime-gpu")
    assert onnxruntimes.clash() is None


def test_only_what_is_installed_is_found() -> None:
    assert onnxruntimes.installed() == {"onnxruntime": onnxruntime.__version__}


class Session:
    """What ONNX Runtime gives: no CUDA, and everything on the CPU."""

    def __init__(self, providers: tuple[str, ...]) -> None:
        self.providers = providers

    def get_providers(self) -> tuple[str, ...]:
        return self.providers


@pytest.fixture
def provider(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The provider is installed."""
    monkeypatch.setattr("edgedec.devices.cuda.check_installed", lambda: None)
    monkeypatch.setattr("edgedec.devices.cuda.preload", lambda: None)
    return monkeypatch


def test_a_provider_that_silently_does_not_start_is_an_error(
    provider: pytest.MonkeyPatch,
) -> None:
    made: list[list[tuple[str, dict[str, str]]]] = []
    severities: list[int] = []

    def session(
        graph: bytes,
        options: onnxruntime.SessionOptions,
        *,
        providers: list[tuple[str, dict[str, str]]],
        enable_fallback: int,
    ) -> Session:
        made.append(providers)
        severities.append(options.log_severity_level)
        return Session(("CPUExecutionProvider",))

    provider.setattr("onnxruntime.InferenceSession", session)
    with pytest.raises(DeviceError, match="does not start"):
        Cuda().open_graph(b"", "none")
    assert severities == [4]  # of this session alone
    ((name, settings),) = made[0]
    assert name == "CUDAExecutionProvider"
    assert int(settings["user_compute_stream"]) > 0
    assert settings["use_tf32"] == "0"


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (
            "/cuda/info.cc:63 FromOptions() FAIL : CUDA failure 35: driver is too old ; GPU=-1 ;",
            DeviceError,
            r"does not start \(CUDA failure 35: driver is too old\): ",
        ),
        ("[ONNXRuntimeError] : 10 : INVALID_GRAPH : no op", DeviceError, "refuses none"),
    ],
)
def test_what_the_provider_refuses_is_a_sentence(
    provider: pytest.MonkeyPatch, said: str, error: type[Exception], match: str
) -> None:
    def session(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    provider.setattr("onnxruntime.InferenceSession", session)
    with pytest.raises(error, match=match):
        Cuda().open_graph(b"", "none")


def on_the_cpu(
    graph: bytes, name: str, options: onnxruntime.SessionOptions, memory: object
) -> object:
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def test_work_that_is_left_to_the_cpu_is_refused_or_told(
    provider: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider.setattr("edgedec.devices.cuda.open_provider", on_the_cpu)
    graph = attention(decomposable=False)
    with pytest.raises(DeviceError, match=r"nodes to the CPU: .*TensorScatter.*--allow-fallback"):
        Cuda().open_graph(graph, "attention")
    with caplog.at_level(logging.WARNING):
        Cuda(allow_fallback=True).open_graph(graph, "attention")
    (said,) = [record.getMessage() for record in caplog.records]
    assert "Attention" in said
    assert "Shape" not in said  # which is where ONNX Runtime wants it
    assert "Shape" in ATTENTION


def test_without_a_gpu_nothing_is_lowered(cuda: FakeCuda, bundle: Bundle, provider: object) -> None:
    cuda.gpus = 0
    with pytest.raises(MissingDeviceError, match="no GPU"):
        Cuda().open_resident(bundle, "encoder", limits_of(bundle.manifest), threads=None)


def test_errors_of_cuda_are_sentences(cuda: FakeCuda) -> None:
    session = CudaSession("decoder.onnx", Empty(), Cuda().arena())
    for error in (
        CudaError("cuMemcpyHtoDAsync", "CUDA_ERROR_UNKNOWN", "unknown"),
        RuntimeError("Non-zero status code: CUDA failure 700: an illegal memory access"),
    ):
        known = session.explain(error)
        assert isinstance(known, DeviceError)
        assert "nvidia-smi" in str(known)
    assert isinstance(session.explain(RuntimeError("Failed to allocate memory")), InputError)


class Empty:
    """A session of a graph without ports."""

    def get_inputs(self) -> list[object]:
        return []

    get_outputs = get_inputs


def test_it_has_no_option() -> None:
    with pytest.raises(InputError, match="no option 'x'"):
        device("x", allow_fallback=False)
    found: object = base.get_device("cuda", allow_fallback=True)
    assert found == Cuda(allow_fallback=True)
