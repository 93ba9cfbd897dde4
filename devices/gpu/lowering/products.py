"""Products with floating-point matrices, and embeddings, in 16 bits."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.model import FLOAT, HALF
from edgedec.devices.passes.embedding import find_embeddings
from edgedec.devices.passes.linear import find_linears
from edgedec.devices.passes.match import constant
from edgedec.kernels.operator import DOMAIN

NARROW = {
    ("", "RMSNormalization"),
    ("", "LayerNormalization"),
    ("", "Attention"),
    (DOMAIN, "DecodeAttention"),
    (DOMAIN, "MemoryAttention"),
    (DOMAIN, "CodebookGather"),
    ("", "Gather"),
    ("", "GatherND"),
}
"""What computes values that float16 holds whatever the model: means of values, values of unit size,
stored ones and rows that are picked."""
THROUGH = ("Reshape", "Transpose", "Cast", "Identity", "Flatten", "Squeeze", "Unsqueeze")


def lower_products(editor: Editor, wide: ir.DataType) -> None:
    """Compute every product with a constant matrix in float16, or in ``wide``, in place.

    Results are float32 again, and so is what is added to them.

    Args:
        editor: of the graph.
        wide: for inputs that may be beyond float16: those of a feed-forward block's second product.
    """
    graph = editor.graph
    linears = [linear.node for linear in find_linears(graph)]
    types = {node: type_of(node.inputs[0], wide) for node in linears}
    for node, dtype in types.items():
        x, stored = node.inputs[:2]
        assert x is not None
        assert stored is not None
        inputs = [editor.cast(x, dtype), editor.stored(stored, dtype)]
        old, name = node.outputs[0], str(node.name or node.outputs[0].name)
        attributes = {key: attr.value for key, attr in node.attributes.items()}
        made = editor.op(
            node, node.op_type, inputs, f"{name}.{dtype.name.lower()}", dtype, **attributes
        )
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            total = [editor.cast(made, FLOAT), bias]
            made = editor.op(node, "Add", total, f"{name}.bias_add", FLOAT)
        editor.put(node, made, old)
        graph.remove(node, safe=True)


def lower_embeddings(editor: Editor) -> None:
    """Pick rows of token embeddings that are stored in float16, in place."""
    for found in find_embeddings(editor.graph):
        node = found.node
        stored = node.inputs[0]
        assert stored is not None
        inputs = [editor.stored(stored, HALF), node.inputs[1]]
        name = f"{found.name}.rows"
        editor.put(node, editor.op(node, "Gather", inputs, name, HALF, axis=0), node.outputs[0])
        editor.graph.remove(node, safe=True)


def type_of(value: ir.Value | None, wide: ir.DataType) -> ir.DataType:
    """The type for a product with an input: float16 where that surely holds it.

    Sums of a residual stream and what comes out of activations and gates may be larger: in T5 they
    are. Where a graph multiplies what it is given, that came out of a norm: models whose blocks
    begin with a norm multiply nothing else.
    """
    node = value.producer() if value is not None else None
    while node is not None and (node.op_type in THROUGH or _scales(node)):
        value = _varying(node)
        node = value.producer() if value is not None else None
    if node is None or (node.domain, node.op_type) in NARROW:
        return HALF
    return wide


def _scales(node: ir.Node) -> bool:
    """Whether a node multiplies by one number, no larger than 1."""
    if node.op_type != "Mul" or node.domain:
        return False
    found = [c for c in map(constant, node.inputs) if c is not None]
    return len(found) == 1 and found[0].size == 1 and abs(found[0].item()) <= 1


def _varying(node: ir.Node) -> ir.Value | None:
    return next((v for v in node.inputs if v is not None and constant(v) is None), None)
