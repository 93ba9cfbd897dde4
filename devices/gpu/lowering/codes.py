"""Products with matrices of codes, and embeddings of them, as a form has them."""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir

from edgedec.devices.gpu.lowering.blocks import Blocks
from edgedec.devices.gpu.lowering.coded import Coded
from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.expanded import Expanded
from edgedec.devices.gpu.lowering.model import FLOAT, WIDE, Form
from edgedec.devices.gpu.lowering.native import Native
from edgedec.devices.gpu.lowering.plugin import Plugin
from edgedec.devices.gpu.lowering.products import type_of
from edgedec.devices.passes.codes import PRODUCT, Matrices, matrix_of, packed_of, reads_codes
from edgedec.devices.passes.match import attribute, constant

INT64 = ir.DataType.INT64


class Writer(Protocol):
    """How a form computes with a matrix of codes."""

    def product(self, place: ir.Node, matrix: Coded, x: ir.Value, name: str) -> ir.Value:
        """``x [..., K]`` times the rows: ``[..., N]``, in x's type or float32."""

    def rows(self, place: ir.Node, matrix: Coded, ids: ir.Value, name: str) -> ir.Value:
        """Rows for ids: ``[..., K]``, in float16 or float32."""


def lower_codes(editor: Editor, matrices: Matrices, form: Form) -> int:
    """Compute with codes as a form does, in place.

    Args:
        editor: of the graph.
        matrices: those that its nodes read.
        form: how.

    Returns:
        The bytes of numbers that took the place of codes.

    Raises:
        RefusalError: a matrix is not listed, or is damaged.
    """
    nodes = [node for node in editor.graph if reads_codes(node)]
    expanded = Expanded(editor)
    writers: dict[Form, type[Native | Plugin]] = {"native": Native, "plugin": Plugin}
    blocks = Blocks(editor, expanded)
    writer: Writer = writers[form](editor) if form in writers else blocks
    types = {node: type_of(node.inputs[0], WIDE[form]) for node in nodes if _multiplies(node)}
    found = _coded(nodes, matrices)
    for node in nodes:
        x, stored = node.inputs[:2]
        assert x is not None
        assert stored is not None
        matrix, name = found[stored], str(node.name)
        if node in types:
            x = editor.cast(x, types[node])
            made = writer.product(node, matrix, x, f"{name}.{types[node].name.lower()}")
            _finish(editor, node, made)
        else:
            editor.put(node, writer.rows(node, matrix, x, name), node.outputs[0])
        editor.graph.remove(node, safe=True)
    return expanded.size


def _multiplies(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == PRODUCT


def _coded(nodes: list[ir.Node], matrices: Matrices) -> dict[ir.Value, Coded]:
    """The matrix behind every value that nodes read codes from."""
    kinds: dict[ir.Value, set[bool]] = {}
    first: dict[ir.Value, ir.Node] = {}
    for node in nodes:
        stored = node.inputs[1]
        if stored is not None:
            kinds.setdefault(stored, set()).add(_multiplies(node))
            first.setdefault(stored, node)
    return {
        stored: Coded(
            str(node.name), packed_of(node, matrix_of(node, matrices)), len(kinds[stored]) == 2
        )
        for stored, node in first.items()
    }


def _finish(editor: Editor, node: ir.Node, made: ir.Value) -> None:
    """Add a product's bias, and let its parts take the place of the node's outputs."""
    bias = constant(node.inputs[5]) if len(node.inputs) > 5 else None
    if bias is not None and bias.any():
        added = [editor.cast(made, FLOAT), editor.constant(bias, f"{node.name}.bias")]
        made = editor.op(node, "Add", added, f"{node.name}.bias_add", FLOAT)
    splits = list(attribute(node, "splits", ()))
    parts = [(o, w) for o, w in zip(node.outputs, splits, strict=False) if w] or [
        (node.outputs[0], 0)
    ]
    if len(parts) == 1:
        editor.put(node, made, parts[0][0])
        return
    assert made.dtype is not None
    widths = editor.shape(*(width for _, width in parts))
    dtypes = [made.dtype] * len(parts)
    pieces = editor.ops(node, "Split", [made, widths], f"{node.name}.part", dtypes, axis=-1)
    for piece, (old, _) in zip(pieces, parts, strict=True):
        editor.put(node, piece, old)
