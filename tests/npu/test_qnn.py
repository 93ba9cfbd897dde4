"""Qualcomm's NPU: what it opens, what it refuses and in which words, and its context binaries."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedec.devices.assigned import NO_FALLBACK
from edgedec.devices.base import get_device
from edgedec.devices.context_file import ContextFile, read_context
from edgedec.devices.qnn import Qnn, device, open_inference
from edgedec.devices.qnn_compile import compare
from edgedec.devices.qnn_context import compile_context
from edgedec.devices.socs import SOCS, find_socs
from edgedec.errors import BundleError, DeviceError, InputError
from edgedec.runtime.manifest import Component
from edgedec.runtime.session import Session

WIDTH = 64
TESTED = ("sm8550", "sm8650", "sc8380xp", "sm8750", "sm8850")
"""QNN's numbers 43, 57, 60, 69 and 87."""
OTHER_BINARY = r"binary of \w\.onnx is not the one that this graph was compiled into: copy"
RNG = np.random.default_rng(0)
WEIGHT = (RNG.standard_normal((WIDTH, WIDTH)) / 8).astype(np.float32)
ROW = RNG.standard_normal((1, WIDTH)).astype(np.float32)


def write(
    folder: Path, name: str = "decoder", *, between: str = "Relu", rows: int | str = 1
) -> Path:
    """Two products of ``float32 [rows, 64]`` with an operator between; weights lie in a file."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["a"], name="layer.q"),
        helper.make_node(between, ["a"], ["b"], name="layer.between"),
        helper.make_node("MatMul", ["b", "weight"], ["y"], name="layer.o"),
    ]
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [rows, WIDTH]) for port in "xy"]
    weight = numpy_helper.from_array(WEIGHT, "weight")
    graph = helper.make_graph(nodes, name, ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    path = folder / f"{name}.onnx"
    onnx.save(model, path, save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
    return path


def run(session: Session) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    y = np.empty((1, WIDTH), np.float32)
    session.bind({"x": ROW}, {"y": y}).run()
    return y


def opened(device: Qnn, graph: Path) -> Session:
    return device.open(graph, threads=None, shared=False)


def test_runs_a_graph_from_bound_memory(simulator: Qnn, tmp_path: Path) -> None:
    session = opened(simulator, write(tmp_path))
    wanted = np.maximum(ROW @ WEIGHT, 0) @ WEIGHT
    found = run(session)
    # float16 has 11 bits, and a sum of 64 products of numbers around 1 loses some
    np.testing.assert_allclose(found, wanted, atol=0.02)
    assert np.abs(found - wanted).max() > 0  # of float16, so it was no CPU


@pytest.mark.parametrize("allow", [False, True])
def test_nodes_that_it_does_not_run(
    simulator: Qnn, tmp_path: Path, allow: bool, caplog: pytest.LogCaptureFixture
) -> None:
    graph = write(tmp_path, between="Erf")
    chosen = get_device("qnn", allow_fallback=allow)
    if not allow:
        with pytest.raises(DeviceError, match=r"1 of 3 nodes: layer\.between \(Erf\)") as raised:
            chosen.open(graph, threads=None, shared=False)
        assert "--allow-fallback" in str(raised.value)
        assert "encoder=qnn,decoder=cpu" in str(raised.value)
        return
    with caplog.at_level(logging.WARNING, logger="edgedec"):
        assert np.isfinite(run(chosen.open(graph, threads=1, shared=False))).all()
    (record,) = caplog.records
    assert "1 of 3 nodes run on the CPU" in record.message
    assert "layer.between (Erf)" in record.message


def test_graphs_of_any_length(simulator: Qnn, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"decoder\.onnx does not run entirely on the NPU"):
        opened(simulator, write(tmp_path, rows="batch"))


def test_a_backend_that_does_not_start(
    simulator: Qnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime says only that nodes were left to the CPU."""
    monkeypatch.setitem(SOCS, "sm8650", SOCS["sm8650"].__class__("sm8650", "", 9999, 1))
    with pytest.raises(DeviceError, match="not even for a graph of one node"):
        opened(simulator, write(tmp_path))


def test_what_is_no_graph(simulator: Qnn, tmp_path: Path) -> None:
    for name, data in {"empty.onnx": b"", "torn.onnx": b"\x3a\xff\xff", "none.onnx": None}.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises((BundleError, DeviceError), match=name):
            opened(simulator, tmp_path / name)


def test_nothing_is_printed(simulator: Qnn, tmp_path: Path) -> None:
    """The simulator prints when it is loaded; standard output is the user's."""
    code = (
        "from pathlib import Path; from edgedec.devices.qnn import device\n"
        f"device(None, False).open(Path({str(write(tmp_path))!r}), threads=1, shared=False)\n"
        "print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("soc", TESTED)
def test_contexts_compute_what_their_graphs_do(simulator: Qnn, tmp_path: Path, soc: str) -> None:
    graph = write(tmp_path)
    target = device(soc, allow_fallback=False)
    wanted = run(opened(target, graph))
    (tmp_path / "out").mkdir()
    files = compile_context(graph, tmp_path / "out" / f"decoder.{soc}.onnx", soc)
    assert [path.name for path in files] == [f"decoder.{soc}.onnx", f"decoder.{soc}_qnn.bin"]
    for path in (graph, tmp_path / "decoder.bin"):  # a context needs neither
        path.unlink()
    context = read_context(files[0])
    assert context == ContextFile(several=False, shared=False)
    found = run(opened(target, files[0]))
    assert found.tobytes() == wanted.tobytes()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "decoder." + soc + ".onnx",
        f"decoder.{soc}_qnn.bin",
        "out",
    ]


def test_the_same_graph_gives_the_same_bytes(simulator: Qnn, tmp_path: Path) -> None:
    graph = write(tmp_path)
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = compile_context(graph, tmp_path / name / "x.onnx", "sm8650")
        made.append([path.read_bytes() for path in files])
    assert made[0] == made[1]


def test_contexts_that_compute_something_else(simulator: Qnn, tmp_path: Path) -> None:
    context, _ = compile_context(write(tmp_path), tmp_path / "x.onnx", "sm8650")
    other = write(tmp_path, "other", between="Tanh")
    prepared = open_inference(other, [simulator.target], NO_FALLBACK)
    with pytest.raises(DeviceError, match=r"other\.onnx for sm8650 computes another 'y'"):
        compare(other, prepared, context, "sm8650")


def test_several_socs_in_one_binary(simulator: Qnn, tmp_path: Path) -> None:
    graph = write(tmp_path)
    files = compile_context(graph, tmp_path / "both.onnx", "sm8650+sm8750")
    assert read_context(files[0]) == ContextFile(several=True, shared=False)
    with pytest.raises(DeviceError, match="for several SoCs, which hardware loads"):
        opened(simulator, files[0])


def test_graphs_that_share_a_binary(simulator: Qnn, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    first, second = write(tmp_path, "decoder"), write(tmp_path, "prefill", between="Tanh")
    out = tmp_path / "out"
    files = compile_context(
        first, out / "decoder.onnx", "sm8650", share={second: out / "prefill.onnx"}
    )
    assert [path.name for path in files] == ["decoder.onnx", "prefill.onnx", "decoder_qnn.bin"]
    for path in files[:2]:
        assert read_context(path) == ContextFile(several=False, shared=True)
        with pytest.raises(DeviceError, match="several graphs share"):  # it would crash
            opened(simulator, path)
    with pytest.raises(DeviceError, match="name one SoC"):
        compile_context(first, out / "x.onnx", ["sm8650", "sm8750"], share={second: out / "y.onnx"})


def test_nothing_is_left_of_what_cannot_be_compiled(simulator: Qnn, tmp_path: Path) -> None:
    graph = write(tmp_path, between="Erf")
    (tmp_path / "out").mkdir()
    with pytest.raises(DeviceError, match=r"layer\.between \(Erf\)"):
        compile_context(graph, tmp_path / "out" / "x.onnx", "sm8650")
    assert not list((tmp_path / "out").iterdir())


def test_a_process_that_dies_while_it_compiles(
    simulator: Qnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = subprocess.CompletedProcess([], -11, stdout="", stderr="oh\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(DeviceError, match=r"decoder\.onnx for sm8650 ended by .* \(oh\)"):
        compile_context(write(tmp_path), tmp_path / "x.onnx", "sm8650")


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_damaged_binary(simulator: Qnn, tmp_path: Path, keep: float) -> None:
    graph, binary = compile_context(write(tmp_path), tmp_path / "x.onnx", "sm8650")
    data = binary.read_bytes()
    binary.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(BundleError, match=r"the compiled graph x\.onnx cannot be loaded"):
        opened(simulator, graph)


@pytest.mark.parametrize("end", ["input", "output"])
def test_sizes_that_the_binary_has_otherwise(simulator: Qnn, tmp_path: Path, end: str) -> None:
    """QNN says so when the graph runs, in words about nodes that its provider made up."""
    graph, _ = compile_context(write(tmp_path), tmp_path / "x.onnx", "sm8650")
    model = onnx.load(graph)
    ports = {"input": model.graph.input, "output": model.graph.output}[end]
    ports[0].type.tensor_type.shape.dim[1].dim_value = WIDTH // 2
    onnx.save(model, graph)
    session = opened(simulator, graph)
    arrays = {
        name: np.zeros(port.lengths, np.float32)
        for name, port in (session.inputs | session.outputs).items()
    }
    binding = session.bind({"x": arrays["x"]}, {"y": arrays["y"]})
    with pytest.raises(BundleError, match=OTHER_BINARY) as raised:
        binding.run()
    assert "QNNExecutionProvider" not in str(raised.value)


def test_the_binary_of_another_graph(simulator: Qnn, tmp_path: Path) -> None:
    _, binary = compile_context(write(tmp_path), tmp_path / "x.onnx", "sm8650")
    other = onnx.load(tmp_path / "decoder.onnx")
    other.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, WIDTH]))
    onnx.save(other, tmp_path / "other.onnx")
    more, full = compile_context(tmp_path / "other.onnx", tmp_path / "z.onnx", "sm8650")
    assert full.read_bytes() != binary.read_bytes()
    full.write_bytes(binary.read_bytes())
    with pytest.raises(BundleError, match=OTHER_BINARY) as raised:
        run(opened(simulator, more))
    assert str(raised.value).endswith("(Inconsistent output sizes).")


def test_the_context_of_a_soc_is_chosen() -> None:
    component = Component(
        "d.sm8650.onnx",
        "qnn",
        "fp16",
        {"sm8650": "d.sm8650.onnx", "sm8750+sm8850": "d.new.onnx"},
    )
    for option, file in {
        None: "d.sm8650.onnx",
        "sm8650": "d.sm8650.onnx",
        "SM8850": "d.new.onnx",
    }.items():
        assert device(option, allow_fallback=False).file(component) == file
    with pytest.raises(
        DeviceError, match=r"sm8650, sm8750\+sm8850, not for sm8550: .* --soc sm8550"
    ):
        device("sm8550", allow_fallback=False).file(component)
    graph = Component("d.onnx", "qnn", "fp16")
    assert device("sm8550", allow_fallback=False).file(graph) == "d.onnx"


def test_socs() -> None:
    assert [soc.number for soc in find_socs("sm8650+sm8750")] == [57, 69]
    for text, said in {
        "sm1": "there is no SoC 'sm1'",
        "sm8650+SM8650": "names a SoC twice",
        "": "--soc has a comma or a plus with no chip beside it",
        "sm8650+": "--soc has a comma or a plus",
    }.items():
        with pytest.raises(InputError, match=said):
            find_socs(text)
    with pytest.raises(InputError, match="there is no SoC 'sm1'"):
        get_device("qnn:sm1")


def test_without_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.devices.qnn_library.find_spec", lambda _: None)
    chosen = device(None, allow_fallback=False)
    assert not chosen.report().available
    graph = write(tmp_path)
    with pytest.raises(DeviceError, match=r"pip install 'edgedec\[npu\]'"):
        opened(chosen, graph)
    with pytest.raises(DeviceError, match=r"pip install 'edgedec\[npu\]'"):
        compile_context(graph, tmp_path / "x.onnx", "sm8650")
