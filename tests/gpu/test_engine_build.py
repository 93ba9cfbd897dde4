"""Building engines: by TensorRT-RTX itself where its wheel is, and by the stand-in."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto as T
from onnx import helper, save_model
from tests.gpu.fakes.model import PROFILES, graph
from tests.gpu.fakes.trt import Builder, FakeTrt

from edgedec.devices.gpu import bindings
from edgedec.devices.gpu.build import Profile, build_engine
from edgedec.errors import DeviceError, MissingDependencyError

ROW: Profile = {"x": ((1, 8), (2, 8), (4, 8))}


def model(*nodes: tuple[str, list[str], str], domain: str = "") -> bytes:
    """A graph of nodes one after another: operator, inputs, domain."""
    made = [
        helper.make_node(kind, inputs, [f"y{i}"], name=f"node{i}", domain=place)
        for i, (kind, inputs, place) in enumerate(nodes)
    ]
    value = helper.make_tensor_value_info
    last = made[-1].output[0]
    made_graph = helper.make_graph(
        made, "g", [value("x", T.FLOAT, ["b", 8])], [value(last, T.FLOAT, ["b", 8])]
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("edgedec", 1)]
    opsets.append(helper.make_opsetid("other", 1))
    made_model = helper.make_model(made_graph, opset_imports=opsets, ir_version=10)
    return bytes(made_model.SerializeToString())


def attention() -> bytes:
    """Attention with the input that the parser drops."""
    value = helper.make_tensor_value_info
    shape: list[str | int | None] = ["b", 2, 4, 64]
    node = helper.make_node("Attention", ["q", "k", "v", "", "", "", "n"], ["y"])
    ins = [value(name, T.FLOAT16, shape) for name in "qkv"] + [value("n", T.INT64, ["b"])]
    made = helper.make_graph([node], "g", ins, [value("y", T.FLOAT16, shape)])
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    return bytes(whole.SerializeToString())


HEADS: Profile = {
    **dict.fromkeys("qkv", ((1, 2, 4, 64), (1, 2, 4, 64), (2, 2, 4, 64))),
    "n": ((1,), (1,), (2,)),
}


@pytest.fixture(params=["real", "stand-in"])
def module(request: pytest.FixtureRequest) -> object:
    if request.param == "stand-in":
        return request.getfixturevalue("rtx")
    return pytest.importorskip("tensorrt_rtx", reason="needs the wheel tensorrt-rtx")


def test_a_graph_with_a_cache_in_place_and_two_profiles_is_built(
    module: object, tmp_path: Path
) -> None:
    from onnx import load_from_string

    path = tmp_path / "graph.onnx"
    save_model(
        load_from_string(graph()),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=64,
    )
    for given in (path, graph()):
        assert len(build_engine(module, given, PROFILES, plugin=False)) > 1000


def test_a_dropped_input_is_refused(module: object) -> None:
    with pytest.raises(DeviceError, match="drops a part") as error:
        build_engine(module, attention(), [HEADS], plugin=False)
    assert "Unused Input" in str(error.value)


def test_a_node_that_nobody_knows_is_named(module: object) -> None:
    whole = model(("Relu", ["x"], ""), ("Nonesuch", ["y0"], "other"))
    with pytest.raises(DeviceError, match="node1, Nonesuch"):
        build_engine(module, whole, [ROW], plugin=False)


def test_ranges_that_make_no_sense_are_refused(module: object) -> None:
    wrong = {"x": ((3, 8), (2, 8), (1, 8))}
    with pytest.raises(DeviceError, match="ranges of shapes"):
        build_engine(module, model(("Relu", ["x"], "")), [wrong], plugin=False)


def test_a_graph_without_ranges_is_refused(module: object) -> None:
    with pytest.raises(DeviceError, match="cannot build an engine of the graph"):
        build_engine(module, model(("Relu", ["x"], "")), [], plugin=False)


def test_ctrl_c_while_it_builds_is_not_lost(rtx: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder.build_serialized_network

    def interrupted(self: Builder, net: Any, config: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return build(self, net, config)

    monkeypatch.setattr(Builder, "build_serialized_network", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_engine(rtx, model(("Relu", ["x"], "")), [ROW], plugin=False)
    assert rtx.built == 1  # it could not be stopped
    assert signal.getsignal(signal.SIGINT) is before


def test_what_the_builder_says_is_told(rtx: FakeTrt) -> None:
    rtx.refuse = "out of patience"
    with pytest.raises(DeviceError, match="out of patience"):
        build_engine(rtx, model(("Relu", ["x"], "")), [ROW], plugin=False)


@pytest.mark.parametrize(("version", "typed"), [("10.16.1", True), ("11.4.0", False)])
def test_only_tensorrt_10_is_told_that_types_are_the_graphs(
    trt: FakeTrt, version: str, typed: bool
) -> None:
    fresh = FakeTrt(trt.cuda, "tensorrt", version)
    build_engine(fresh, model(("Relu", ["x"], "")), [ROW], plugin=False)
    assert fresh.flags == (2 if typed else 0)
    build_engine(fresh, model(("Relu", ["x"], "")), [ROW], plugin=True)
    flag = fresh.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS
    assert fresh.flags == (2 if typed else 0) | 1 << flag


def test_without_a_gpu_tensorrt_builds_nothing(trt: FakeTrt) -> None:
    trt.cuda.gpus = 0
    with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
        build_engine(trt, model(("Relu", ["x"], "")), [ROW], plugin=False)


def test_a_package_that_is_old_or_missing_is_one_sentence(
    trt: FakeTrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bindings.load("tensorrt") is trt
    trt.__version__ = "10.3.0"
    with pytest.raises(DeviceError, match=r"10\.3\.0 is too old"):
        bindings.load("tensorrt")
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        bindings.load("tensorrt")
    assert bindings.missing("tensorrt") is not None
