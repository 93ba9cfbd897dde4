"""ONNX as the fake of TensorRT reads it: what it refuses, and how the CPU computes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedec.kernels.words import unpack_words

PLUGIN = "CodebookMatMul"
KNOWN: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}


class ParseError(Exception):
    """What the parser tells of a node."""

    def __init__(self, node: Any, index: int, reason: str) -> None:
        super().__init__(reason)
        self.node, self.index = node, index


def read(graph: bytes | Path) -> onnx.ModelProto:
    """A model with all its weights inside."""
    model = onnx.load_from_string(graph) if isinstance(graph, bytes) else onnx.load(graph)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ValueError(f"the weights of {tensor.name} are outside")
    return model


def check(model: onnx.ModelProto, *, plugins: bool) -> list[str]:
    """Refuse what TensorRT refuses.

    Returns:
        Warnings.

    Raises:
        ParseError: at the first node that it does not take.
    """
    outputs = {value.name for value in model.graph.output}
    warnings = []
    for index, node in enumerate(model.graph.node):
        if node.domain not in {"", "edgedec"} or (node.domain and node.op_type != PLUGIN):
            raise ParseError(node, index, f"no importer for {node.domain}::{node.op_type}")
        if node.domain and not plugins:
            raise ParseError(node, index, "Plugin not found, are the plugin name, version, ...")
        if node.op_type == "Attention" and len(node.input) > 6 and node.input[6]:
            warnings.append(f"Unused Input: {node.input[6]}")
        if node.op_type == "TensorScatter" and node.output[0] not in outputs:
            raise ParseError(node, index, "output tensor must be a network output")
    return warnings


def aliases(model: onnx.ModelProto) -> dict[str, str]:
    """Output -> input whose memory it is: of caches that are written in place."""
    inputs = {value.name for value in model.graph.input}
    return {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "TensorScatter" and node.input[0] in inputs
    }


def shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """A length, or the name of one that may vary."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims)


def kind(value: onnx.ValueInfoProto) -> str:
    """TensorRT's word for a type."""
    return KNOWN[value.type.tensor_type.elem_type]


def for_cpu(model: onnx.ModelProto) -> bytes:
    """The same model as ONNX Runtime's CPU provider takes it: our plugin and bfloat16 are gone."""
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        for attribute in [a for a in node.attribute if a.name.startswith("TRT_")]:
            node.attribute.remove(attribute)  # the parser's own, which ONNX does not know
        nodes.extend(_dense(node, graph, known) if node.op_type == PLUGIN else [node])
    del graph.node[:]
    graph.node.extend(nodes)
    _widen(model)
    return bytes(model.SerializeToString())


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with small integers as numbers: ONNX Runtime would expand them in each run."""
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        if len(node.input) == 2 and all(name in known for name in node.input):
            codes, scale = (numpy_helper.to_array(known[name]) for name in node.input)
            if scale.size == 1:
                numbers = codes.astype(scale.dtype) * scale
                graph.initializer.append(numpy_helper.from_array(numbers, node.output[0]))
                graph.node.remove(node)
    return model


def _dense(node: Any, graph: Any, known: dict[str, Any]) -> list[Any]:
    """Our plugin's node as a product with the weights that its codes stand for."""
    x, *names = node.input
    words, levels, groups, scales = (numpy_helper.to_array(known[name]) for name in names)
    # How many columns there are, only x tells; padding has code 0 and must not count.
    per_block = words.shape[1]
    columns = _columns(graph, x, per_block)
    bits = per_block // -(-columns // 32)
    codes = unpack_words(words, columns, bits)
    table = levels.astype(np.float32)[np.repeat(groups, 16)[: len(codes)]]
    weight = np.take_along_axis(table, codes.astype(np.int64), 1) * scales[:, None]
    name = f"{node.output[0]}.dense"
    graph.initializer.append(numpy_helper.from_array(weight.T.astype(np.float32).copy(), name))
    wide, product = f"{name}.x", f"{name}.y"
    return [
        helper.make_node("Cast", [x], [wide], to=TensorProto.FLOAT),
        helper.make_node("MatMul", [wide, name], [product]),
        helper.make_node("Cast", [product], list(node.output), to=known[names[1]].data_type),
    ]


def _columns(graph: Any, name: str, per_block: int) -> int:
    for value in (*graph.value_info, *graph.input):
        if value.name == name:
            return int(value.type.tensor_type.shape.dim[-1].dim_value)
    raise ValueError(f"the width of {name} is not known")


def _widen(model: onnx.ModelProto) -> None:
    """Compute in float32 what is bfloat16: the CPU provider has no kernels for that."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in {"to", "dtype", "output_dtype"}:
                attribute.i = _wider(attribute.i)
            if attribute.t.data_type == TensorProto.BFLOAT16:
                array = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    for value in model.graph.value_info:
        tensor_type = value.type.tensor_type
        tensor_type.elem_type = _wider(tensor_type.elem_type)


def _wider(number: int) -> int:
    return int(TensorProto.FLOAT) if number == TensorProto.BFLOAT16 else number


def lengths(given: tuple[int | str, ...], known: dict[str, int]) -> tuple[int, ...] | None:
    """A shape with its names replaced; sums and differences of names and numbers too."""
    found = []
    for length in given:
        if isinstance(length, int):
            found.append(length)
            continue
        terms = re.findall(r"([+-]?)\s*([\w'.]+)", length)
        values = [
            (-1 if sign == "-" else 1) * (int(term) if term.isdigit() else known.get(term, 0))
            for sign, term in terms
        ]
        if not all(term.isdigit() or term in known for _, term in terms):
            return None
        found.append(sum(values))
    return tuple(found)
