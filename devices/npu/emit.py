"""Write a graph again with fixed shapes, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import onnx_ir as ir

from edgedec.devices.npu.known import Arrays
from edgedec.devices.npu.writer import Writer
from edgedec.devices.passes.refusal import RefusalError
from edgedec.kernels.operator import DOMAIN

Handler = Callable[["Emitter", ir.Node], None]
READS = {
    (DOMAIN, "DecodeAttention"): 3,
    (DOMAIN, "MemoryAttention"): 3,
    ("", "RotaryEmbedding"): 1,
    ("", "GatherND"): 1,
}
"""Inputs of a node, from the first, that its static form computes with; of others, all."""


class Emitter:
    """Writes one pass through a graph.

    Args:
        writer: where to.
        handlers: (domain, operator) -> what writes a node of it; others are copied.
        bindings: the graph's values that exist already, which are its inputs.
        constants: values that depend on lengths alone.
        tables: values that depend on positions alone -> float32 ``[positions, ...]``.
        positions: int32 ``[1, count]``, to look tables up with.
        count: tokens of a run.
    """

    def __init__(
        self,
        writer: Writer,
        handlers: Mapping[tuple[str, str], Handler],
        bindings: Mapping[ir.Value, ir.Value],
        constants: Arrays,
        tables: Arrays,
        positions: ir.Value | None,
        count: int,
    ) -> None:
        self.writer = writer
        self.count = count
        self.constants = constants
        self.tables = tables
        self._handlers = handlers
        self._values = dict(bindings)
        self._positions = positions
        self._looked_up: dict[ir.Value, ir.Value] = {}
        self._node: ir.Node | None = None

    def emit(self, nodes: Iterable[ir.Node]) -> None:
        """Write nodes in order.

        Raises:
            RefusalError: one cannot be written.
        """
        for node in nodes:
            self._node = node
            self._handlers.get((node.domain, node.op_type), copy)(self, node)

    def read(self, value: ir.Value | None) -> ir.Value:
        """What a value of the graph is in the new one."""
        assert value is not None
        if value in self._values:
            return self._values[value]
        if value in self.constants:
            return self.writer.constant(self.constants[value], str(value.name))
        if value in self.tables:
            table = self.writer.constant(self.tables[value], f"{value.name}.table")
            return self.look_up(table, str(value.name))
        if value.is_initializer():
            return self.writer.keep(value)
        raise RefusalError(self._node, f"it reads {value.name!r}, which such graphs do not have")

    def look_up(self, table: ir.Value, name: str) -> ir.Value:
        """Rows of a constant table at the positions, once."""
        assert self._positions is not None
        if table not in self._looked_up:
            picked = self.writer.op("Gather", [table, self._positions], name, axis=0)
            self._looked_up[table] = picked
        return self._looked_up[table]

    def give(self, value: ir.Value, new: ir.Value) -> None:
        """Let readers of a value read a new one."""
        self._values[value] = new


def needed(
    graph: ir.Graph, wanted: Iterable[ir.Value], ready: Collection[ir.Value]
) -> list[ir.Node]:
    """The nodes behind values, in order, as far as static graphs compute them.

    Args:
        graph: in topological order.
        wanted: what to compute.
        ready: values that nothing computes any more.
    """
    found: set[ir.Node] = set()
    todo = list(wanted)
    while todo:
        value = todo.pop()
        node = value.producer()
        if node is None or node in found or value in ready:
            continue
        found.add(node)
        todo += [v for v in read_by(node) if v is not None]
    return [node for node in graph if node in found]


def read_by(node: ir.Node) -> list[ir.Value | None]:
    """The inputs of a node that its static form computes with."""
    return list(node.inputs[: READS.get((node.domain, node.op_type), len(node.inputs))])


def copy(emitter: Emitter, node: ir.Node) -> None:
    """Write a node as it is."""
    if node.domain:
        raise RefusalError(node, "it is no standard operator")
    inputs = [None if value is None else emitter.read(value) for value in node.inputs]
    name = node.name or str(node.outputs[0].name)
    made = emitter.writer.add(
        node.op_type, inputs, name, list(node.attributes.values()), len(node.outputs)
    )
    for old, new in zip(node.outputs, made, strict=True):
        emitter.give(old, new)
