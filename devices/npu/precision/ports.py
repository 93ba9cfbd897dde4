"""Inputs and outputs of graphs in the types that they travel in."""

from __future__ import annotations

import re

import onnx_ir as ir

CACHE = re.compile(r"(past|new|cross)\.\d+\.(self\.)?(key|value)")
"""Names of inputs and outputs that hold keys and values."""


def cache_ports(graph: ir.Graph) -> tuple[list[ir.Value], list[ir.Value]]:
    """The inputs and the outputs of a graph that hold keys and values."""
    inputs = [value for value in graph.inputs if CACHE.fullmatch(str(value.name))]
    outputs = [value for value in graph.outputs if CACHE.fullmatch(str(value.name))]
    return inputs, outputs


def grid_name(port: str) -> str:
    """The cache that a port belongs to: new rows are written into what is ``past`` next time."""
    return port.replace("new.", "past.", 1) if port.startswith("new.") else port


def read_through(graph: ir.Graph, port: ir.Value, dtype: ir.DataType, *way: ir.Node) -> None:
    """Give an input another type; what read it reads what the last of some nodes makes of it.

    Args:
        graph: the graph, changed in place.
        port: its input.
        dtype: the input's new type.
        way: nodes without first input, to be put between.
    """
    uses = list(port.uses())
    value = port
    for number, node in enumerate(way):
        node.replace_input_with(0, value)
        value = node.outputs[0]
        value.name, value.shape = f"{port.name}.way{number}", port.shape
        value.type = ir.TensorType(ir.DataType.FLOAT)
        graph.insert_before(graph[0], node) if number == 0 else graph.insert_after(
            way[number - 1], node
        )
    for use in uses:
        use.node.replace_input_with(use.idx, value)
    port.type = ir.TensorType(dtype)


def write_through(graph: ir.Graph, index: int, dtype: ir.DataType, node: ir.Node) -> None:
    """Let an output be what a node makes of what it was.

    Args:
        graph: the graph, changed in place.
        index: of the output.
        dtype: its new type.
        node: a node without first input, to be put behind.
    """
    inner = graph.outputs[index]
    outer = node.outputs[0]
    outer.name, outer.shape, outer.type = inner.name, inner.shape, ir.TensorType(dtype)
    inner.name = f"{inner.name}.float"
    node.replace_input_with(0, inner)
    graph.append(node)
    graph.outputs[index] = outer
