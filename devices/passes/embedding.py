"""Token embeddings: rows of a constant matrix, picked by the graph's token ids."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgedec.devices.passes.match import attribute
from edgedec.quantize.matrices import Matrix

LEAST_COLUMNS = 8
TOKENS = "input_ids"
ON_THE_WAY = ("Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten")
"""What may lie between the tokens and the embedding."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """``node.outputs[0] [..., columns]``: the rows ``node.inputs[1] [...]`` of a matrix."""

    node: ir.Node
    matrix: Matrix

    @property
    def name(self) -> str:
        """The node's name, or where it has none that of what it computes."""
        return self.node.name or str(self.node.outputs[0].name)


def find_embeddings(graph: ir.Graph) -> list[Embedding]:
    """Every Gather of rows of a constant float32 matrix by tokens, in order.

    Tables of positions are read the same way, but by other numbers; they are small and stay.
    """
    found = []
    for node in graph:
        if node.domain != "" or node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
            continue
        stored, indices = node.inputs
        tensor = stored.const_value if stored is not None and stored.is_initializer() else None
        if (
            stored is None
            or tensor is None
            or tensor.dtype != ir.DataType.FLOAT
            or len(tensor.shape) != 2
            or not _are_tokens(indices)
        ):
            continue
        matrix = Matrix(stored, transposed=False, role="embedding")
        if matrix.columns >= LEAST_COLUMNS:
            found.append(Embedding(node, matrix))
    return found


def _are_tokens(value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in ON_THE_WAY:
            return False
        value = node.inputs[0]
    return value is not None and value.name == TOKENS and value.dtype == ir.DataType.INT64
