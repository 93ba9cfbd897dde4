"""A bundle's graph in float32 and standard operators, but for attention, which becomes ours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.refusal import RefusalError
from edgedec.devices.passes.attention import fuse_attention
from edgedec.devices.passes.change import add_initializer, replace, take_over
from edgedec.devices.passes.linear import find_linears
from edgedec.devices.passes.match import attribute, constant
from edgedec.devices.passes.widen import widen
from edgedec.kernels.operator import DOMAIN
from edgedec.kernels.packing import Packed
from edgedec.runtime.manifest import CodebookMatrix

Matrices = Mapping[str, CodebookMatrix]
"""Path of the node that reads a matrix -> the matrix, as a manifest lists a component's."""


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
        if node.domain == DOMAIN and node.op_type in ("CodebookMatMul", "CodebookGather"):
            _decode(graph, node, matrices, coded, decoded)
        elif (node.domain, node.op_type) == (DOMAIN, "AddRMSNorm"):
            _split_norm(graph, node)
        elif (node.domain, node.op_type) == (DOMAIN, "ArgMax"):
            _standard_choice(graph, node)
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
    stored, matrix = node.inputs[1], matrices.get(str(node.name))
    if stored is None or matrix is None:
        raise RefusalError(node, "the manifest does not list its matrix")
    if stored not in decoded:
        decoded[stored] = _packed(node, matrix).dequantize()
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


def _packed(node: ir.Node, matrix: CodebookMatrix) -> Packed:
    gathers = node.op_type == "CodebookGather"
    stored = [constant(value) for value in node.inputs[1:]]
    if len(stored) < 4 or any(array is None for array in stored[:4]):
        raise RefusalError(node, "its codes are no constants")
    codes, levels, row_scale, groups = stored[:4]
    at = 4 if gathers else 5
    order = stored[at] if len(stored) > at else None
    try:
        return Packed(
            codes,  # type: ignore[arg-type]
            levels,  # type: ignore[arg-type]
            row_scale,  # type: ignore[arg-type]
            groups,  # type: ignore[arg-type]
            bits=int(attribute(node, "bits")),
            columns=matrix.columns,
            row_order=order,
        )
    except ValueError as error:
        raise RefusalError(node, f"its codes are damaged: {error}") from error


def _split_norm(graph: ir.Graph, node: ir.Node) -> None:
    """AddRMSNorm as the two nodes that it was."""
    left, right, scale = node.inputs
    norm, total = node.outputs
    added = ir.node("Add", [left, right], name=str(total.name))
    graph.insert_before(node, added)
    added.outputs[0].name = f"{total.name}.sum"
    made = ir.node(
        "RMSNormalization",
        [added.outputs[0], scale],
        {"axis": -1, "epsilon": float(attribute(node, "epsilon"))},
        name=node.name,
    )
    graph.insert_before(node, made)
    made.outputs[0].name = f"{norm.name}.norm"
    replace(graph, total, added.outputs[0])
    replace(graph, norm, made.outputs[0])
    graph.remove(node, safe=True)


def _standard_choice(graph: ir.Graph, node: ir.Node) -> None:
    made = ir.node("ArgMax", node.inputs, {"axis": -1, "keepdims": 0}, name=node.name)
    take_over(graph, made, [node], node)


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
