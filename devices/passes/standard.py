"""Fused nodes of a bundle as the standard ones that they were, but for products and attention."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.passes.change import replace, take_over
from edgedec.devices.passes.match import attribute
from edgedec.kernels.operator import DOMAIN


def split_rows(graph: ir.Graph) -> None:
    """Replace every AddRMSNorm by a sum and a norm, and our ArgMax by the standard one, in place.

    The opposite of `edgedec.devices.passes.rows`.
    """
    for node in list(graph):
        if (node.domain, node.op_type) == (DOMAIN, "AddRMSNorm"):
            _split_norm(graph, node)
        elif (node.domain, node.op_type) == (DOMAIN, "ArgMax"):
            _standard_choice(graph, node)


def _split_norm(graph: ir.Graph, node: ir.Node) -> None:
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
