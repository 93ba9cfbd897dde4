"""Which nodes of a graph a session runs where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NO_FALLBACK = {"session.disable_cpu_ep_fallback": "1"}
"""Entries of a session's configuration: all nodes run on the device, or opening fails."""
FALLBACK = {"session.record_ep_graph_assignment_info": "1"}
"""Entries with which the CPU runs what the device does not, and `nodes_on_cpu` knows what."""
MOST_NAMED = 8


@dataclass(frozen=True)
class Node:
    """A node of a graph, with its operator."""

    name: str
    operator: str

    def __str__(self) -> str:
        return f"{self.name} ({self.operator})" if self.name else self.operator


def nodes_on_cpu(inference: Any) -> tuple[list[Node], int]:
    """The nodes that fell back to ONNX Runtime's CPU provider, and the number of all nodes.

    Nodes that it fused or folded before it asked the device are counted as what became of them.
    """
    fallen, every = [], 0
    for part in inference.get_provider_graph_assignment_info():
        nodes = part.get_nodes()
        every += len(nodes)
        if part.ep_name == "CPUExecutionProvider":
            fallen += [Node(node.name, node.op_type) for node in nodes]
    return fallen, every


def listed(nodes: Sequence[Node]) -> str:
    """Nodes in a sentence, the first of them if there are many."""
    text = ", ".join(map(str, nodes[:MOST_NAMED]))
    more = len(nodes) - MOST_NAMED
    return text if more <= 0 else f"{text} and {more} more"
