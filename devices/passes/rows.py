"""What happens to whole rows between products: residual sums with their norm, the greedy choice.

On short inputs these nodes cost more than they compute, so there are operators for them.
"""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.passes.change import take_over
from edgedec.devices.passes.match import attribute, axis, constant, producer
from edgedec.kernels.operator import DOMAIN


def fuse_norms(graph: ir.Graph) -> None:
    """Replace every Add whose sum an RMSNormalization reads by one AddRMSNorm, in place."""
    for node in list(graph):
        if (node.domain, node.op_type) != ("", "RMSNormalization"):
            continue
        total = producer(node.inputs[0], "Add")
        if total is None or not _adds_rows(total, node):
            continue
        epsilon = float(attribute(node, "epsilon", 1e-5))
        inputs = [*total.inputs, node.inputs[1]]
        made = ir.Node(
            DOMAIN,
            "AddRMSNorm",
            inputs,
            [ir.AttrFloat32("epsilon", epsilon)],
            num_outputs=2,
            name=node.name,
        )
        # Where the sum was, because the block that follows adds to it.
        take_over(graph, made, [node, total], total)


def fuse_choices(graph: ir.Graph) -> None:
    """Replace every ArgMax over the last axis by our own, in place."""
    for node in list(graph):
        if (node.domain, node.op_type) != ("", "ArgMax") or not _takes_first_of_last(node):
            continue
        made = ir.Node(DOMAIN, "ArgMax", node.inputs, [], num_outputs=1, name=node.name)
        take_over(graph, made, [node], node)


def _adds_rows(total: ir.Node, norm: ir.Node) -> bool:
    """Whether two tensors of one shape are added, and their last axis is what the norm is over."""
    left, right = total.inputs
    scale = constant(norm.inputs[1])
    shapes = [value.shape for value in (left, right, total.outputs[0]) if value is not None]
    return (
        len(shapes) == 3
        and all(shape is not None and shape == shapes[0] for shape in shapes)
        and scale is not None
        and scale.shape == (axis(left, -1),)
        and attribute(norm, "axis", -1) == -1
        and attribute(norm, "stash_type", 1) == 1
        and len(norm.outputs) == 1
        and total.outputs[0].dtype == ir.DataType.FLOAT
    )


def _takes_first_of_last(node: ir.Node) -> bool:
    value = node.inputs[0]
    rank = len(value.shape) if value is not None and value.shape is not None else None
    return (
        attribute(node, "axis", 0) in ({-1} if rank is None else {-1, rank - 1})
        and attribute(node, "keepdims", 1) == 0
        and attribute(node, "select_last_index", 0) == 0
        and value is not None
        and value.dtype == ir.DataType.FLOAT
    )
