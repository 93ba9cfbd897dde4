"""Products with a constant matrix: where they are, with the bias that is added to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgedec.devices.passes.match import (
    attribute,
    axis,
    constant,
    is_constant,
    only_user,
    producer,
)
from edgedec.quantize.matrices import Matrix, Role

LEAST = 8
"""Matrices with fewer rows or columns are left as they are: they weigh nothing."""
ADAPTERS = re.compile(r"(.*\.)?(lora_[AB]|lora_adapter\.[AB])\.weight|meta\.\d\.weight")
"""Names of matrices that are left as they are too: low-rank branches and a classifier, which were
trained to correct the others, and are small."""


@dataclass(frozen=True, eq=False)
class Linear:
    """``output [..., rows] = x [..., columns] . matrix^T (+ bias [rows])``.

    Attributes:
        node: the product, whose name is the module's path.
        x: its input, before any flattening.
        matrix: its weights.
        bias: what is added, as an initializer of ``rows`` values in any shape.
        output: the value that takes all of this into account.
    """

    node: ir.Node
    x: ir.Value
    matrix: Matrix
    bias: ir.Value | None
    output: ir.Value

    @property
    def name(self) -> str:
        """The product's name, or where it has none that of what it computes."""
        return self.node.name or str(self.node.outputs[0].name)


def find_linears(graph: ir.Graph) -> list[Linear]:
    """Every product of a graph with a float32 matrix that is constant, in order."""
    scores = _scores(graph)
    return [found for node in graph if (found := _linear(node, scores)) is not None]


def _linear(node: ir.Node, scores: frozenset[ir.Node]) -> Linear | None:
    if node.domain != "" or node.op_type not in {"MatMul", "Gemm"}:
        return None
    x, stored = node.inputs[:2]
    if x is None or x.is_initializer() or stored is None or not _is_matrix(stored):
        return None
    rows_first = False
    bias = None
    if node.op_type == "Gemm":
        if attribute(node, "transA", 0) or any(
            attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")
        ):
            return None
        rows_first = bool(attribute(node, "transB", 0))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
    role: Role = "head" if node in scores else "linear"
    matrix = Matrix(stored, transposed=not rows_first, role=role)
    if min(matrix.rows, matrix.columns) < LEAST or not (bias is None or _is_bias(bias, matrix)):
        return None
    output = node.outputs[0]
    if bias is None:
        bias, output = _added_bias(x, output, matrix)
    x, output = _unflattened(node, x, output)
    return Linear(node, x, matrix, bias, output)


def _is_matrix(value: ir.Value) -> bool:
    tensor = value.const_value if value.is_initializer() else None
    return (
        tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
        and len(tensor.shape) == 2
        and not ADAPTERS.fullmatch(str(value.name))
    )


def _is_bias(value: ir.Value | None, matrix: Matrix) -> bool:
    """Whether a value is constant and adds the same to every row of a product."""
    values = constant(value)
    return (
        values is not None
        and values.dtype == np.float32
        and values.shape in {(matrix.rows,), (1, matrix.rows)}
    )


def _added_bias(x: ir.Value, output: ir.Value, matrix: Matrix) -> tuple[ir.Value | None, ir.Value]:
    """The constant that the product's only reader adds to it, and the sum."""
    node = only_user(output, "Add")
    if node is not None:
        for mine, other in (node.inputs, reversed(node.inputs)):
            if mine is output and other is not output and _is_bias(other, matrix):
                # The sum of a vector and a constant [1, rows] has an axis more.
                if x.shape is not None and len(x.shape) == 1 and _rank(other) != 1:
                    return None, output
                return other, node.outputs[0]
    return None, output


def _rank(value: ir.Value | None) -> int:
    values = constant(value)
    return 0 if values is None else values.ndim


def _unflattened(node: ir.Node, x: ir.Value, output: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Input and output without the reshaping that Gemm needs and our operator doesn't."""
    before = producer(x, "Reshape", "Flatten")
    after = only_user(output, "Reshape")
    whole = before.inputs[0] if before is not None else None
    if node.op_type != "Gemm" or before is None or after is None or whole is None:
        return x, output
    columns = axis(whole, -1)
    rows = (
        is_constant(before.inputs[1], -1, columns)
        if before.op_type == "Reshape" and isinstance(columns, int)
        else attribute(before, "axis", 1) == -1
    )
    result = after.outputs[0]
    return (whole, result) if rows and _same_lead(whole, result) else (x, output)


def _same_lead(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values are known to have the same axes but for the last."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    lead = [axis(one, i) for i in range(len(one.shape) - 1)]
    return None not in lead and lead == [axis(other, i) for i in range(len(other.shape) - 1)]


def _scores(graph: ir.Graph) -> frozenset[ir.Node]:
    """The product that computes the logits, behind whatever has one varying input."""
    return frozenset(
        node for output in graph.outputs if output.name == "logits" for node in _behind(output)
    )


def _behind(value: ir.Value | None) -> Iterator[ir.Node]:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in {"MatMul", "Gemm"}:
            yield node
            return
        first = node.inputs[0] if node.inputs else None
        varying = [v for v in node.inputs if v is not None and constant(v) is None]
        # A reshape's second input says nothing about values.
        value = first if node.op_type == "Reshape" or varying == [first] else None
