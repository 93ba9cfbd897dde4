"""Intel's way: what it says everywhere, and, where ONNX Runtime has OpenVINO, graphs on its CPU.

The latter takes an environment of its own (docs/npu.md); no test needs an NPU.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedec.devices.base import get_device
from edgedec.devices.openvino import INSTALL, OpenVino, device, missing
from edgedec.errors import BundleError, DeviceError, InputError
from edgedec.runtime.manifest import Component

WIDTH = 16
WEIGHT = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32)
needs_openvino = pytest.mark.skipif(
    missing() is not None, reason="needs an environment with onnxruntime-openvino"
)


def write(folder: Path, between: str) -> Path:
    """Two products of ``float32 [1, 16]``, with an operator between."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["a"], name="layer.q"),
        helper.make_node(between, ["a"], ["b"], name="layer.between"),
        helper.make_node("MatMul", ["b", "weight"], ["y"], name="layer.o"),
    ]
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [1, WIDTH]) for port in "xy"]
    weight = numpy_helper.from_array(WEIGHT, "weight")
    graph = helper.make_graph(nodes, "decoder", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "decoder.onnx")
    return folder / "decoder.onnx"


@needs_openvino
def test_runs_a_graph(tmp_path: Path) -> None:
    session = get_device("openvino").open(write(tmp_path, "Relu"), threads=1, shared=False)
    x, y = np.ones((1, WIDTH), np.float32), np.empty((1, WIDTH), np.float32)
    session.bind({"x": x}, {"y": y}).run()
    # a processor with bfloat16 products uses them: 8 bits, of sums of 16
    np.testing.assert_allclose(y, np.maximum(x @ WEIGHT, 0) @ WEIGHT, rtol=0.05, atol=0.2)


@needs_openvino
@pytest.mark.parametrize("allow", [False, True])
def test_nodes_that_it_does_not_run(
    tmp_path: Path, allow: bool, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = get_device("openvino:cpu", allow_fallback=allow)
    graph = write(tmp_path, "Mish")
    if not allow:
        with pytest.raises(DeviceError, match=r"leaves \d of \d nodes to the CPU: .*Softplus"):
            chosen.open(graph, threads=None, shared=False)
        return
    with caplog.at_level(logging.WARNING, logger="edgedec"):
        chosen.open(graph, threads=None, shared=False)
    (record,) = caplog.records
    assert "nodes run on the CPU instead of OpenVINO" in record.message


@needs_openvino
def test_a_damaged_graph(tmp_path: Path) -> None:
    graph = write(tmp_path, "Relu")
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"decoder\.onnx cannot be opened"):
        device(None, allow_fallback=False).open(graph, threads=None, shared=False)


@needs_openvino
def test_devices_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedec.devices.openvino.available", lambda: ["CPU"])
    with pytest.raises(DeviceError, match="OpenVINO finds no NPU on this machine, only CPU"):
        device("NPU", allow_fallback=False).open(
            write(tmp_path, "Relu"), threads=None, shared=False
        )


def test_without_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    chosen = device(None, allow_fallback=False)
    assert not chosen.report().available
    with pytest.raises(DeviceError, match="onnxruntime-openvino"):
        chosen.open(write(tmp_path, "Relu"), threads=None, shared=False)


def test_the_guide_has_the_command(root: Path) -> None:
    assert f"    {INSTALL}\n" in (root / "docs" / "npu.md").read_text(encoding="utf-8")


def test_kinds() -> None:
    assert get_device("openvino") == OpenVino("CPU")
    assert get_device("openvino:npu", allow_fallback=True) == OpenVino("NPU", allow_fallback=True)
    with pytest.raises(InputError, match="OpenVINO has no device 'TPU'; there are: CPU, GPU, NPU"):
        get_device("openvino:TPU")


def test_contexts_are_not_for_it() -> None:
    chosen = device(None, allow_fallback=False)
    assert chosen.file(Component("d.onnx", "openvino", "nbits8")) == "d.onnx"
    compiled = Component("d.sm8650.onnx", "qnn", "nbits8", {"sm8650": "d.sm8650.onnx"})
    with pytest.raises(DeviceError, match="compiled for sm8650 and cannot run on OpenVINO"):
        chosen.file(compiled)
