"""Nodes and functions of edgedec's own operators: what a bundle may say with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import helper

from edgedec.runtime.onnx_file import read_onnx
from edgedec.runtime.operators import ATTRIBUTES

HEADS = {"q_num_heads": 8, "kv_num_heads": 2, "scale": 0.5, "origin": 1}
OPERATORS: dict[str, dict[str, Any]] = {
    "CodebookMatMul": {"bits": 4, "compute": "int8", "splits": [64, 32, 0]},
    "CodebookGather": {"bits": 8, "K": 64},
    "DecodeAttention": HEADS,
    "MemoryAttention": HEADS,
    "AddRMSNorm": {"epsilon": 1e-6},
    "ArgMax": {},
}
IMPORTS = (helper.make_opsetid("", 24), helper.make_opsetid("edgedec", 1))


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [], [])
    return helper.make_model(graph, opset_imports=IMPORTS)


def node(name: str, **changes: Any) -> onnx.NodeProto:
    return helper.make_node(name, ["x"], ["y"], domain="edgedec", **OPERATORS[name] | changes)


def body(name: str, *inside: onnx.NodeProto, domain: str = "edgedec") -> onnx.FunctionProto:
    attributes = list(OPERATORS.get(name, {}))
    return helper.make_function(domain, name, ["x"], ["y"], inside, IMPORTS[:1], attributes)


def reason(made: onnx.ModelProto) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_onnx(made.SerializeToString())
    return str(caught.value)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_with_and_without_a_function(name: str) -> None:
    made = model(node(name))
    read_onnx(made.SerializeToString())
    made.functions.append(body(name, helper.make_node("Relu", ["x"], ["y"])))
    read_onnx(made.SerializeToString())


INT, NAN = 1 << 31, float("nan")
WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("CodebookMatMul", {"bits": bits}) for bits in (0, 1, 5, 16, -4, 4.0, "4", [4])),
    *(("CodebookMatMul", {"compute": mode}) for mode in ("", "int4", "INT8", 8)),
    *(("CodebookMatMul", {"splits": s}) for s in ([64], [64, 0, 0, 0], [0, 64, 0], [64, -1, 0])),
    *(("CodebookMatMul", {"splits": s}) for s in ([INT, 0, 0], [INT - 1, 1, 0], 64, "64")),
    *(("CodebookGather", {"K": width}) for width in (0, -1, INT, 64.0)),
    *(("DecodeAttention", {"q_num_heads": heads}) for heads in (0, -8, 7, 1 << 32)),
    *(("MemoryAttention", {"kv_num_heads": heads}) for heads in (0, -1, 16, 1 << 32)),
    *(("MemoryAttention", {"scale": scale}) for scale in (NAN, float("inf"), 1)),
    *(("DecodeAttention", {"origin": origin}) for origin in (-1, INT, 1.0)),
    *(("AddRMSNorm", {"epsilon": epsilon}) for epsilon in (NAN, 1)),
    *((name, {"surprise": 1}) for name in OPERATORS),
]


@pytest.mark.parametrize(("name", "changes"), WRONG)
def test_attributes_out_of_range(name: str, changes: dict[str, Any]) -> None:
    said = reason(model(node(name, **changes)))
    assert said.startswith(name)


def test_every_operator_is_known() -> None:
    assert OPERATORS.keys() == ATTRIBUTES.keys()


@pytest.mark.parametrize("name", [name for name in OPERATORS if OPERATORS[name]])
def test_an_attribute_that_is_missing_or_given_twice(name: str) -> None:
    made = node(name)
    first = made.attribute.pop(0)
    assert f"{name} lacks {first.name!r}" in reason(model(made))
    made.attribute.extend([first, first])
    assert "given twice" in reason(model(made))


def test_operators_that_are_none() -> None:
    """Also the one that tells `edgedec devices` about the library: no bundle needs it."""
    for name in ("KernelInfo", "Codebook", ""):
        made = model(helper.make_node(name, [], ["y"], domain="edgedec"))
        assert "there is no operator" in reason(made)
    made = model(helper.make_node("Relu", ["x"], ["y"], overload="fast"))
    assert "names an overload" in reason(made)
    later = model(node("CodebookGather"))
    later.opset_import[1].version = 2
    assert "version 2" in reason(later)


def reference(to: str, name: str = "kv_num_heads") -> onnx.NodeProto:
    made = helper.make_node("Attention", ["x", "x", "x"], ["y"], q_num_heads=1)
    made.attribute.append(
        onnx.AttributeProto(name=name, type=onnx.AttributeProto.INT, ref_attr_name=to)
    )
    return made


RELU = helper.make_node("Relu", ["x"], ["y"])
FUNCTIONS: dict[str, tuple[Callable[[], list[onnx.FunctionProto]], str]] = {
    "another name": (lambda: [body("Other", RELU)], "no operator of edgedec's"),
    "the one without": (lambda: [body("KernelInfo", RELU)], "no operator of edgedec's"),
    "a standard name": (lambda: [body("Relu", RELU, domain="")], "no operator of edgedec's"),
    "twice": (lambda: [body("CodebookGather", RELU)] * 2, "there twice"),
    "a call": (lambda: [body("CodebookGather", node("CodebookGather"))], "calls a function"),
    "another range": (
        lambda: [body("DecodeAttention", reference("origin"))],
        "kv_num_heads = origin",
    ),
    "no heads": (
        lambda: [body("DecodeAttention", helper.make_node("Attention", [], ["y"], q_num_heads=0))],
        "q_num_heads = 0",
    ),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_that_are_no_body(kind: str) -> None:
    make, words = FUNCTIONS[kind]
    made = model(RELU)
    made.functions.extend(make())
    assert words in reason(made)


def test_functions_that_differ_from_the_operator() -> None:
    for change in ("attribute", "overload", "opset", "default"):
        function = body("CodebookGather", RELU)
        if change == "attribute":
            function.attribute.append("more")
        elif change == "overload":
            function.overload = "fast"
        elif change == "opset":
            function.opset_import[0].version = 23
        else:
            function.attribute_proto.append(helper.make_attribute("more", 1))
        made = model(RELU)
        made.functions.append(function)
        reason(made)


def test_a_function_may_take_the_heads_of_its_operator() -> None:
    made = model(RELU)
    made.functions.append(body("DecodeAttention", reference("kv_num_heads")))
    read_onnx(made.SerializeToString())
    assert "has no value" in reason(model(reference("kv_num_heads")))
