"""A bundle's graph in float32 and standard operators, but for attention, which becomes ours."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.passes.attention import fuse_attention
from edgedec.devices.passes.change import add_initializer, replace
from edgedec.devices.passes.codes import Matrices, matrix_of, packed_of, reads_codes
from edgedec.devices.passes.linear import find_linears
from edgedec.devices.passes.match import constant
from edgedec.devices.passes.standard import split_rows
from edgedec.devices.passes.widen import widen


def standardise(model: ir.Model, matrices: Matrices) -> tuple[ir.Model, dict[str, int]]:
    """A copy of a graph in the form that lowering starts from.

    Codes are the float32 matrices that they stand for, each in a product of its own; products are
    MatMul of a matrix ``[in, out]``; attention is DecodeAttention or MemoryAttention where its
    bias is a table over distances.

    Args:
        model: a component's graph; it stays as it is.
        matrices: those that it holds as codes.

    Returns:
        The graph, and initializer -> bits per code of what were codes.

    Raises:
        RefusalError: a matrix of codes is not listed or is damaged.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    copy = model.clone()
    graph = copy.graph
    widen(graph)
    coded: dict[str, int] = {}
    decoded: dict[ir.Value, NDArray[np.float32]] = {}
    for node in list(graph):
        if reads_codes(node):
            _decode(graph, node, matrices, coded, decoded)
    split_rows(graph)
    _use_matmul(graph)
    fuse_attention(graph)
    copy.functions.clear()
    RemoveUnusedNodesPass()(copy)
    return copy, coded


def _decode(
    graph: ir.Graph,
    node: ir.Node,
    matrices: Matrices,
    coded: dict[str, int],
    decoded: dict[ir.Value, NDArray[np.float32]],
) -> None:
    """Put the matrices that codes stand for in the place of a node that reads codes."""
    stored, matrix = node.inputs[1], matrix_of(node, matrices)
    assert stored is not None
    if stored not in decoded:
        decoded[stored] = packed_of(node, matrix).dequantize()
    first = 0
    for part, output in zip(matrix.parts, node.outputs, strict=False):
        rows = decoded[stored][first : first + part.rows]
        coded[part.name] = matrix.bits
        if node.op_type == "CodebookGather":
            weight = _initializer(graph, part.name, rows)
            assert node.inputs[0] is not None
            made = ir.node("Gather", [weight, node.inputs[0]], {"axis": 0}, name=node.name)
            _put(graph, made, node, output)
        else:
            _product(graph, node, output, part.name, rows, first)
        first += part.rows
    graph.remove(node, safe=True)


def _product(
    graph: ir.Graph,
    node: ir.Node,
    output: ir.Value,
    name: str,
    rows: NDArray[np.float32],
    first: int,
) -> None:
    """One of a node's products, with the part of its bias from ``first`` on."""
    path = name.removesuffix(".weight")
    weight = _initializer(graph, name, np.ascontiguousarray(rows.T))
    made = ir.node("MatMul", [node.inputs[0], weight], name=path)
    added = constant(node.inputs[5]) if len(node.inputs) > 5 else None
    bias = None if added is None else added[first : first + len(rows)]
    if bias is None or not bias.any():
        _put(graph, made, node, output)
        return
    graph.insert_before(node, made)
    made.outputs[0].name = f"{path}.product"
    inputs = [made.outputs[0], add_initializer(graph, f"{path}.bias", bias)]
    _put(graph, ir.node("Add", inputs, name=f"{path}.bias_add"), node, output)


def _use_matmul(graph: ir.Graph) -> None:
    """Write Gemm, with the reshaping around it, as MatMul of a matrix ``[in, out]``."""
    for linear in find_linears(graph):
        if linear.node.op_type != "Gemm":
            continue
        stored, path = linear.matrix.stored, linear.name
        if not linear.matrix.transposed:
            stored = _turned(graph, linear.matrix.stored)
        made = ir.node("MatMul", [linear.x, stored], name=path)
        if linear.bias is not None:
            graph.insert_before(linear.node, made)
            made.outputs[0].name = f"{path}.product"
            inputs = [made.outputs[0], linear.bias]
            made = ir.node("Add", inputs, name=f"{path}.bias_add")
        last = linear.output.producer()
        assert last is not None
        _put(graph, made, last, linear.output)


def _turned(graph: ir.Graph, stored: ir.Value) -> ir.Value:
    """A matrix the other way round, by its name if nothing else reads it."""
    tensor, name = stored.const_value, str(stored.name)
    assert tensor is not None
    if len(stored.uses()) == 1:
        stored.name = f"{name}.rows"
    else:
        name = f"{name}.columns"
    rows, columns = tensor.shape.numpy()
    turned = ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(tensor.numpy().T), name=name),
        dtype=tensor.dtype,
        shape=ir.Shape((columns, rows)),
        name=name,
    )
    value = ir.Value(
        name=name, shape=turned.shape, type=ir.TensorType(tensor.dtype), const_value=turned
    )
    graph.register_initializer(value)
    return value


def _put(graph: ir.Graph, made: ir.Node, place: ir.Node, old: ir.Value) -> None:
    """Write a node before another one; its output takes a value's place."""
    graph.insert_before(place, made)
    made.outputs[0].name = f"{old.name}.new"
    replace(graph, old, made.outputs[0])


def _initializer(graph: ir.Graph, name: str, values: NDArray[np.float32]) -> ir.Value:
    return graph.initializers.get(name) or add_initializer(graph, name, values)
