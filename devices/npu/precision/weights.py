"""The weight matrices of static graphs: what there is to store in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.model import StaticModel
from edgedec.devices.passes.match import attribute
from edgedec.quantize.matrices import Role

LEAST = 8
"""Matrices with fewer rows or columns are left as they are: they weigh nothing."""
ON_THE_WAY = ("Reshape", "Identity", "Squeeze", "Unsqueeze", "Cast")
"""What may lie between tokens and the embedding that they pick rows of."""
AFTER_HEAD = (*ON_THE_WAY, "Add", "Mul")
"""What may lie between the head's product and the logits."""


@dataclass(frozen=True)
class Weight:
    """A constant matrix ``[rows, columns]``; a product sums over columns, an embedding picks rows.

    Attributes:
        name: of the initializer: the module's path and ``.weight``.
        rows, columns: outputs and inputs of a product, or entries and width of an embedding.
        role: what it is for.
        transposed: whether it is stored as ``[columns, rows]``.
        nodes: component -> names of the nodes that read it.
    """

    name: str
    rows: int
    columns: int
    role: Role
    transposed: bool
    nodes: dict[str, tuple[str, ...]]

    @property
    def path(self) -> str:
        """The module's path, such as ``decoder.3.self_attn.q``."""
        return self.name.removesuffix(".weight")

    def read(self, model: StaticModel) -> NDArray[np.float32]:
        """The values, float32 ``[rows, columns]``."""
        graph = model.models[next(iter(self.nodes))].graph
        tensor = graph.initializers[self.name].const_value
        assert tensor is not None
        values = tensor.numpy().astype(np.float32, copy=False)
        return np.ascontiguousarray(values.T if self.transposed else values)


@dataclass(frozen=True, eq=False)
class Reader:
    """A node that reads a matrix, as its second input (a product) or its first (an embedding)."""

    node: ir.Node
    stored: ir.Value
    role: Role
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, as `Weight` has them."""
        first, second = _sizes(self.stored)
        return (second, first) if self.transposed else (first, second)


def weights_of(model: StaticModel) -> list[Weight]:
    """Every matrix of a model's graphs, in order of first use; equal names are one matrix.

    One that products and embeddings read is in the list for either.
    """
    found: dict[tuple[str, bool], tuple[Reader, dict[str, list[str]]]] = {}
    for component, part in model.models.items():
        for reader in find_readers(part.graph):
            key = (str(reader.stored.name), reader.role == "embedding")
            _, nodes = found.setdefault(key, (reader, {}))
            nodes.setdefault(component, []).append(str(reader.node.name))
    return [
        Weight(
            name,
            *reader.shape,
            reader.role,
            reader.transposed,
            {component: tuple(names) for component, names in nodes.items()},
        )
        for (name, _), (reader, nodes) in found.items()
    ]


def find_readers(graph: ir.Graph) -> list[Reader]:
    """Every node that multiplies by a constant matrix, or picks rows of one by tokens, in order."""
    scores = _scores(graph)
    return [found for node in graph if (found := _reader(node, scores)) is not None]


def _reader(node: ir.Node, scores: frozenset[ir.Node]) -> Reader | None:
    if node.domain != "":
        return None
    role: Role = "head" if node in scores else "linear"
    if node.op_type == "MatMul" and _is_matrix(node.inputs[1]):
        return Reader(node, _value(node, 1), role, transposed=True)
    if node.op_type == "Gemm" and _is_matrix(node.inputs[1]) and _is_plain(node):
        rows_first = bool(attribute(node, "transB", 0))
        return Reader(node, _value(node, 1), role, transposed=not rows_first)
    if node.op_type == "Gather" and attribute(node, "axis", 0) == 0 and _is_matrix(node.inputs[0]):
        source = _source(node.inputs[1])
        if source == "input_ids":
            return Reader(node, _value(node, 0), "embedding", transposed=False)
    return None


def _is_plain(gemm: ir.Node) -> bool:
    return not attribute(gemm, "transA", 0) and all(
        attribute(gemm, name, 1.0) == 1.0 for name in ("alpha", "beta")
    )


def _is_matrix(value: ir.Value | None) -> bool:
    tensor = value.const_value if value is not None and value.is_initializer() else None
    return (
        value is not None
        and tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
        and len(tensor.shape) == 2
        and min(_sizes(value)) >= LEAST
    )


def _sizes(value: ir.Value) -> tuple[int, int]:
    assert value.const_value is not None
    first, second = value.const_value.shape.numpy()
    return first, second


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _source(value: ir.Value | None) -> str:
    """Where integers come from; what the graph chose itself are tokens like those that it gets."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "ArgMax":
            return "input_ids"
        if node.op_type not in ON_THE_WAY:
            return ""
        value = node.inputs[0]
    return "" if value is None else str(value.name)


def _scores(graph: ir.Graph) -> frozenset[ir.Node]:
    """The products that compute logits: those that leave the graph, or that it chooses from."""
    ends = [output for output in graph.outputs if output.name == "logits"]
    ends += [v for node in graph if node.op_type == "ArgMax" and (v := node.inputs[0]) is not None]
    return frozenset(node for end in ends for node in _behind(end))


def _behind(value: ir.Value | None) -> Iterator[ir.Node]:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in ("MatMul", "Gemm"):
            yield node
            return
        if node.op_type not in AFTER_HEAD:
            return
        varying = [v for v in node.inputs if v is not None and not v.is_initializer()]
        value = varying[0] if len(varying) == 1 else None
