"""Embeddings as integers with a scale per row; the graph's activations stay float."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.precision.constants import Packed, add_tensor, integers
from edgedec.devices.npu.precision.rounding import fit_groups
from edgedec.devices.npu.precision.weights import Reader, Weight
from edgedec.devices.passes.change import take_over


def use_rows(graph: ir.Graph, reader: Reader, weight: Weight, bits: int, packed: Packed) -> None:
    """Let an embedding pick rows of integers, and their scales, in place.

    The table is dequantised with scale 1 before rows are picked: picking integers does not run on
    the HTP, and this way the table stays as small as its integers in a context.
    """
    node = reader.node
    codes, scales, one = packed.get(
        weight, f"rows{bits}", lambda values: _tensors(values, bits, weight.name)
    )
    table = ir.Node(
        "",
        "DequantizeLinear",
        [add_tensor(graph, codes), add_tensor(graph, one)],
        num_outputs=1,
        name=f"{node.name}.table",
    )
    tokens = node.inputs[1]
    rows = _gather(table.outputs[0], tokens, f"{node.name}.rows")
    scale = _gather(add_tensor(graph, scales), tokens, f"{node.name}.scales")
    product = ir.Node("", "Mul", [rows.outputs[0], scale.outputs[0]], num_outputs=1, name=node.name)
    for value, shape in (
        (table.outputs[0], (weight.rows, weight.columns)),
        (rows.outputs[0], node.outputs[0].shape),
        (scale.outputs[0], (*(node.outputs[0].shape or ())[:-1], 1)),
    ):
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(shape) if shape is not None else None
    for made in (table, rows, scale):
        made.outputs[0].name = made.name
        graph.insert_before(node, made)
    take_over(graph, product, [node], node)


def round_rows(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The values ``[rows, columns]`` that a matrix with a scale per row has after rounding."""
    codes, scales = fit_groups(values, bits)
    return (codes * scales[:, None]).astype(np.float32)


def _gather(table: ir.Value, tokens: ir.Value | None, name: str) -> ir.Node:
    axis = ir.AttrInt64("axis", 0)
    return ir.Node("", "Gather", [table, tokens], [axis], num_outputs=1, name=name)


def _tensors(
    values: NDArray[np.float32], bits: int, name: str
) -> tuple[ir.TensorProtocol, ir.TensorProtocol, ir.TensorProtocol]:
    codes, scales = fit_groups(values, bits)
    return (
        integers(codes, bits, f"{name}.rows{bits}"),
        ir.tensor(scales[:, None], name=f"{name}.row_scales{bits}"),
        ir.tensor(np.float32(1), name="one.scale"),
    )
