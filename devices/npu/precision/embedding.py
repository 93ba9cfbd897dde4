"""Embeddings as integers with a scale per row; the graph's activations stay float.

The HTP does not pick rows of integers as such, and unfolds a table that is dequantised for it. A
table that is read between DequantizeLinear and QuantizeLinear of one grid stays as small as it is.
That holds for 8 bits, so that two integers of 4 bits are one of 8 there, taken apart by arithmetic.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.precision.constants import Packed, add_tensor
from edgedec.devices.npu.precision.halves import check_half, read_half
from edgedec.devices.npu.precision.rounding import fit_groups
from edgedec.devices.npu.precision.weights import Reader, Weight
from edgedec.devices.passes.change import take_over

ZERO = {4: 8, 8: 128}
"""What is added to integers so that none is negative."""


def use_rows(graph: ir.Graph, reader: Reader, weight: Weight, bits: int, packed: Packed) -> None:
    """Let an embedding pick rows of integers, and their scales, in place."""
    node = reader.node
    codes, scales = packed.get(
        weight, f"rows{bits}", lambda values: _tensors(values, bits, weight.name)
    )
    lead = tuple((node.outputs[0].shape or ir.Shape(())).numpy()[:-1])
    nodes = _Nodes(graph, node)
    tokens = node.inputs[1]
    # codes of 4 bits are numbers up to 255 yet: their zero point comes after taking them apart
    one, zero = nodes.number("one", 1.0), nodes.integer(ZERO[8] if bits == 8 else 0)
    width = weight.columns * bits // 8
    table = nodes.add(
        "DequantizeLinear", [add_tensor(graph, codes), one, zero], "table", (weight.rows, width)
    )
    rows = nodes.add("Gather", [table, tokens], "rows", (*lead, width), axis=0)
    stored = nodes.add("QuantizeLinear", [rows, one, zero], "stored", (*lead, width))
    stored.type = ir.TensorType(ir.DataType.UINT8)
    values = nodes.add("DequantizeLinear", [stored, one, zero], "codes", (*lead, width))
    if bits == 4:
        values = _apart(nodes, values, (*lead, width))
    scale = nodes.add("Gather", [read_half(graph, scales), tokens], "scales", (*lead, 1), axis=0)
    product = ir.Node("", "Mul", [values, scale], num_outputs=1, name=node.name)
    take_over(graph, product, [node], node)


def round_rows(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The values ``[rows, columns]`` that an embedding has after rounding."""
    codes, scales = fit_groups(values, bits, half=True)
    return (codes * scales[:, None]).astype(np.float32)


class _Nodes:
    """Makes nodes before one, named after it."""

    def __init__(self, graph: ir.Graph, place: ir.Node) -> None:
        self.graph, self.place = graph, place

    def add(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        name: str,
        shape: tuple[int, ...] | ir.Shape,
        **attributes: int,
    ) -> ir.Value:
        """The float32 output of a new node."""
        made = ir.Node(
            "",
            op_type,
            inputs,
            [ir.AttrInt64(key, value) for key, value in attributes.items()],
            num_outputs=1,
            name=f"{self.place.name}.{name}",
        )
        output = made.outputs[0]
        output.name, output.shape = made.name, ir.Shape(shape)
        output.type = ir.TensorType(ir.DataType.FLOAT)
        self.graph.insert_before(self.place, made)
        return output

    def number(self, name: str, value: float) -> ir.Value:
        return add_tensor(self.graph, ir.tensor(np.float32(value), name=f"rows.{name}"))

    def integer(self, value: int) -> ir.Value:
        return add_tensor(self.graph, ir.tensor(np.uint8(value), name=f"rows.zero{value}"))


def _apart(nodes: _Nodes, pairs: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """The numbers of 4 bits that ``low + 16 * high`` consist of: lows, then highs."""
    sixteen = nodes.number("sixteen", 16.0)
    parts = nodes.add("Mul", [pairs, nodes.number("sixteenth", 1 / 16)], "parts", shape)
    high = nodes.add("Floor", [parts], "high", shape)
    whole = nodes.add("Mul", [high, sixteen], "whole", shape)
    low = nodes.add("Sub", [pairs, whole], "low", shape)
    wide = (*shape[:-1], 2 * shape[-1])
    joined = nodes.add("Concat", [low, high], "joined", wide, axis=-1)
    return nodes.add("Sub", [joined, nodes.number("eight", float(ZERO[4]))], "signed", wide)


def _tensors(
    values: NDArray[np.float32], bits: int, name: str
) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    check_half(values, name)
    signed, scales = fit_groups(values, bits, half=True)
    codes: NDArray[np.uint8] = (signed.astype(np.int16) + ZERO[bits]).astype(np.uint8)
    if bits == 4:
        half = codes.shape[1] // 2
        codes = np.bitwise_or(codes[:, :half], codes[:, half:] << np.uint8(4))
    return (
        ir.tensor(codes, name=f"{name}.rows{bits}"),
        ir.tensor(scales[:, None].astype(np.float16), name=f"{name}.row_scales{bits}"),
    )
