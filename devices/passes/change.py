"""Changes to graphs that all passes make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let everything that reads ``old`` read ``new``, and let it take a graph output's place."""
    new.type, new.shape = old.type, old.shape
    for i, output in enumerate(graph.outputs):
        if output is old:
            new.name, old.name = old.name, f"{old.name}.replaced"
            graph.outputs[i] = new
    for use in list(old.uses()):
        use.node.replace_input_with(use.idx, new)


def take_over(graph: ir.Graph, made: ir.Node, nodes: Sequence[ir.Node], place: ir.Node) -> None:
    """Put a node, before ``place``, where others were: they go.

    Its outputs take the place of the first output of each.
    """
    graph.insert_before(place, made)
    for node, output in zip(nodes, made.outputs, strict=True):
        output.name = node.outputs[0].name
        replace(graph, node.outputs[0], output)
    graph.remove(nodes, safe=True)


def add_initializer(graph: ir.Graph, name: str, values: NDArray[np.generic]) -> ir.Value:
    """A constant of a graph."""
    tensor = ir.tensor(values, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(values.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
