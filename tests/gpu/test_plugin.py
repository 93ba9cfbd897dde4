"""The plugin, taken through what TensorRT calls of it, with the bindings of two versions."""

from __future__ import annotations

import hashlib
import re
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir
import pytest
from tests.export.tiny import write
from tests.gpu.conformance import wheels
from tests.gpu.resident import LIMITS

from edgedec.devices.gpu.lowering import resident_graph
from edgedec.errors import DeviceError
from edgedec.export import export_checkpoint
from edgedec.kernels import ptx
from edgedec.kernels.tensorrt.plugin import NAME, NAMESPACE, TACTICS, register
from edgedec.runtime.bundle import open_bundle

MOST = {"B": 16, "T": 512}
AT = [{"B": 1, "T": 1}, {"B": 3, "T": 1}, {"B": 2, "T": 7}, {"B": 16, "T": 512}]
SHAPES: list[tuple[list[Any], int, int]] = [
    # leading dimensions of x, K, N
    (["B", "T"], 512, 1024),
    (["B", "T"], 33, 17),
    (["B", 5, "T"], 100, 1),
    (["T"], 1024, 32000),
    ([2, 3], 96, 48),
]
TYPES = {"fp16": "HALF", "bf16": "BF16"}


def case(
    leading: list[Any], columns: int, rows: int, bits: int, dtype: str, **other: Any
) -> dict[str, Any]:
    return {
        "x": [*leading, columns],
        "dtype": dtype,
        "words": [rows, -(-columns // 32) * bits],
        "levels": [3, 2**bits],
        "groups": [-(-rows // 16)],
        "at": AT,
        "most": MOST,
        **other,
    }


CASES = [
    case(leading, columns, rows, bits, dtype)
    for (leading, columns, rows), bits, dtype in product(SHAPES, (2, 3, 4, 8), ("fp16", "bf16"))
]
OTHERS = {
    "many rows": case(["B", "T"], 64, 64, 4, "fp16", most={"B": 1024, "T": 512}),
    "too many rows": case(["B", "T"], 64, 64, 4, "fp16", most={"B": 1024, "T": 4096}),
    "words of 3 bits": case(["B", "T"], 64, 64, 4, "fp16", words=[64, 6]),
    "columns unknown": case(["B"], 64, 64, 4, "fp16", x=["B", "T"]),
    "32 levels": case(["B", "T"], 64, 64, 4, "fp16", levels=[1, 32]),
    "float32": case(["B", "T"], 64, 64, 4, "fp32"),
}


@pytest.fixture(scope="module", params=sorted(wheels.VERSIONS))
def said(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What the plugin says in `CASES` and `OTHERS`."""
    folder = wheels.bindings(request.param, request.config)
    answers: list[dict[str, Any]] = wheels.run(
        folder, "harness.py", stdin=[*CASES, *OTHERS.values()]
    )
    return answers


@pytest.fixture
def others(said: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return dict(zip(OTHERS, said[len(CASES) :], strict=True))


def volume(shape: list[Any], at: dict[str, int]) -> int:
    result = 1
    for length in shape:
        result *= at[length] if isinstance(length, str) else length
    return result


pytestmark = pytest.mark.network


def test_is_compiled_ahead_and_has_no_attributes(said: list[dict[str, Any]]) -> None:
    for answer in said[: len(CASES)]:
        assert answer["ahead"] is True
        assert answer["fields"] == []


def test_describes_its_output(said: list[dict[str, Any]]) -> None:
    for asked, answer in zip(CASES, said[: len(CASES)], strict=True):
        leading, rows = asked["x"][:-1], asked["words"][0]
        assert answer["outputs"] == 1
        assert answer["types"] == [TYPES[asked["dtype"]]]
        assert answer["alias"] == -1
        assert answer["shapes"] == [[*(volume([n], at) for n in leading), rows] for at in AT]


def test_takes_the_types_of_the_network_only(said: list[dict[str, Any]]) -> None:
    for asked, answer in zip(CASES, said[: len(CASES)], strict=True):
        dtype = TYPES[asked["dtype"]]
        assert answer["combinations"] == [[dtype, "INT32", dtype, "INT32", "FLOAT", dtype]]
        assert answer["layouts"] == ["LINEAR"]


def test_launches_as_the_kernels_want(said: list[dict[str, Any]]) -> None:
    for asked, answer in zip(CASES, said[: len(CASES)], strict=True):
        *leading, columns = asked["x"]
        rows, bits = asked["words"][0], asked["levels"][1].bit_length() - 1
        assert set(answer["tactics"]) == {str(number) for number in TACTICS}
        for number, tactic in TACTICS.items():
            kernel, found = ptx.kernel(tactic, bits, asked["dtype"]), answer["tactics"][str(number)]
            assert found["name"] == kernel.name
            assert found["sha256"] == hashlib.sha256(kernel.ptx().encode()).hexdigest()
            for at, launch in zip(AT, found["launches"], strict=True):
                m = volume(leading, at)
                assert launch["scalars"] == [m, rows, columns]
                assert tuple(launch["grid"]) == kernel.grid(m, rows)
                assert launch["block"] == [kernel.threads, 1, 1]
                assert launch["shared"] == kernel.shared


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The products of a small model's graphs, as cases."""
    root = tmp_path_factory.mktemp("lowered")
    bundle = open_bundle(
        export_checkpoint(
            write(root / "checkpoint", "t5"),
            root / "bundle",
            quant="cb4",
            method="kmeans",
            verify=False,
        )
    )
    cases = []
    for component in bundle.manifest.components:
        graph = resident_graph(bundle, component, LIMITS, "plugin").model.graph
        for node in graph.all_nodes():
            if node.domain == NAMESPACE:
                assert node.op_type == NAME
                assert set(node.attributes) == {"plugin_namespace"}
                cases.append(asked_by(node))
    return cases


def asked_by(node: ir.Node) -> dict[str, Any]:
    """A node of a graph as a case, where rows and lengths are of its run."""
    x, *others = [value for value in node.inputs if value is not None]
    assert x.shape is not None
    words, levels, groups, scales = [value.const_value for value in others if value.const_value]
    assert [words.dtype, groups.dtype, scales.dtype] == [
        ir.DataType.INT32,
        ir.DataType.INT32,
        ir.DataType.FLOAT,
    ]
    assert x.dtype == levels.dtype
    assert list(scales.shape) == [words.shape[0]]
    return {
        "x": [n if isinstance(n, int) else f"dynamic {at}" for at, n in enumerate(x.shape)],
        "dtype": {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}[x.dtype],
        "words": list(words.shape),
        "levels": list(levels.shape),
        "groups": list(groups.shape),
        "at": [{"dynamic 0": 3, "dynamic 1": 5}],
        "most": {"dynamic 0": LIMITS.rows, "dynamic 1": LIMITS.target},
    }


@pytest.mark.parametrize("version", sorted(wheels.VERSIONS))
def test_takes_what_graphs_are_lowered_to(
    version: str, lowered: list[dict[str, Any]], pytestconfig: pytest.Config
) -> None:
    assert {asked["dtype"] for asked in lowered} == {"fp16", "bf16"}
    answers = wheels.run(wheels.bindings(version, pytestconfig), "harness.py", stdin=lowered)
    for asked, answer in zip(lowered, answers, strict=True):
        assert "error" not in answer
        for found in answer["tactics"].values():
            rows, columns = asked["words"][0], asked["x"][-1]
            assert found["launches"][0]["scalars"] == [15, rows, columns]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("tactic", ["gemv", "gemm"])
def test_kernels_take_what_tensorrt_passes(tactic: Any, dtype: Any, bits: int) -> None:
    kernel = ptx.kernel(tactic, bits, dtype)
    entry = re.search(rf"\.entry {kernel.name}\((.*?)\)", kernel.ptx(), re.DOTALL)
    assert entry is not None
    # five inputs, M, N and K, the output
    types = re.findall(r"\.param \.(\w+)", entry[1])
    assert types == [*["u64"] * 5, *["u32"] * 3, "u64"]


def test_offers_no_kernel_that_has_too_many_blocks(others: dict[str, dict[str, Any]]) -> None:
    assert ptx.kernel("gemv", 4, "fp16").grid(1024 * 512, 64)[1] > 65535
    assert [TACTICS[int(number)] for number in others["many rows"]["tactics"]] == ["gemm"]
    assert "4,194,304 rows at once" in others["too many rows"]["error"]


def test_refuses_what_its_kernels_cannot_read(others: dict[str, dict[str, Any]]) -> None:
    assert "64 columns of 4 bits, 8 words a row, by rows of 6" in others["words of 3 bits"]["error"]
    assert "tables of 32 levels" in others["32 levels"]["error"]
    assert "not DataType.FLOAT" in others["float32"]["error"]


def test_takes_columns_that_are_settled_at_run_time(others: dict[str, dict[str, Any]]) -> None:
    launches = others["columns unknown"]["tactics"]["1"]["launches"]
    assert [launch["scalars"] for launch in launches] == [[at["B"], 64, at["T"]] for at in AT]


@pytest.mark.parametrize("release", ["10.3.0", "10.15.1.29", "11.0.0.114", "11.2.1.2", "8.6.1"])
def test_refuses_old_versions(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text("")
    module = ModuleType("tensorrt_of_old")
    module.__dict__.update(__version__=release, __path__=[str(tmp_path)])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(DeviceError, match=r"is too old for edgedec's plugin, which needs 1[01]\."):
        register(module)


@pytest.mark.parametrize("attributes", [{}, {"__path__": []}])
def test_refuses_packages_without_plugins(
    attributes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("tensorrt_without")
    module.__dict__.update(__version__="1.7.1.116", **attributes)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(DeviceError, match="takes no plugins"):
        register(module)
