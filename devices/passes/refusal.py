"""Why a graph cannot be lowered."""

from __future__ import annotations

import onnx_ir as ir


class RefusalError(Exception):
    """A node that a device cannot have; whoever lowers the graph makes a sentence of it.

    Args:
        node: the node, or None where the reason is not one node's.
        reason: why, as the end of a sentence.
    """

    def __init__(self, node: ir.Node | None, reason: str) -> None:
        super().__init__(reason)
        self.node = node
        self.reason = reason


def describe(node: ir.Node) -> str:
    """A node and its operator, in words."""
    name = node.name or str(node.outputs[0].name)
    domain = f"{node.domain}::" if node.domain else ""
    return f"node {name!r} ({domain}{node.op_type})"
