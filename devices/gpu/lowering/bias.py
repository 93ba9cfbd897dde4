"""What is added to attention's scores, computed in the graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.model import FLOAT, HALF, MASKED
from edgedec.devices.passes.match import attribute, table
from edgedec.devices.passes.refusal import RefusalError

INT64 = ir.DataType.INT64
Array = NDArray[np.float32]


class Bias:
    """Masks with relative biases, each computed once for a graph, in float16.

    Args:
        editor: of the graph, whose first input has the new tokens on axis 1.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def length(self, place: ir.Node) -> ir.Value:
        """The number T' of new tokens, int64 ``[1]``."""

        def make() -> ir.Value:
            tokens = self._editor.graph.inputs[0]
            return self._editor.op(place, "Shape", [tokens], "new.length", INT64, start=1, end=2)

        return self._once(("length",), make)

    def causal(self, node: ir.Node, capacity: int) -> ir.Value:
        """For a DecodeAttention, over caches: ``[B, 1 or H, T', capacity]``.

        Raises:
            RefusalError: its table is no constant.
        """
        rows = _causal_rows(_table(node), int(attribute(node, "origin")))
        lengths = node.inputs[5]
        assert lengths is not None

        def make() -> ir.Value:
            e, name = self._editor, f"{node.name}.bias"
            column = e.op(node, "Unsqueeze", [lengths, e.shape(1)], f"{name}.past", INT64)
            query = e.op(node, "Add", [column, self._count(node)], f"{name}.query", INT64)
            query = e.op(node, "Unsqueeze", [query, e.shape(2)], f"{name}.position", INT64)
            keys = e.constant(np.arange(capacity, dtype=np.int64) - 1, f"{name}.keys")
            found = self._look_up(node, rows, [query, keys])
            return e.op(node, "Transpose", [found], name, HALF, perm=[1, 0, 2, 3])

        return self._once(("causal", lengths, capacity, rows.shape, rows.tobytes()), make)

    def masked(self, node: ir.Node) -> ir.Value:
        """For a MemoryAttention, over keys that are given: ``[B, 1 or H, T', S]``.

        Raises:
            RefusalError: its table is no constant.
        """
        rows, origin = _table(node), int(attribute(node, "origin"))
        mask = node.inputs[3]
        assert mask is not None
        if not rows.any():
            return self._once(("spread", mask), lambda: self._spread(node, mask))

        def make() -> ir.Value:
            e, name = self._editor, f"{node.name}.bias"
            query = e.op(node, "Unsqueeze", [self._count(node), e.shape(1)], f"{name}.query", INT64)
            start = e.constant(np.array(origin, np.int64), f"{name}.origin")
            query = e.op(node, "Add", [query, start], f"{name}.position", INT64)
            found = self._look_up(node, rows, [query, self._count(node)])
            found = e.op(node, "Unsqueeze", [found, e.shape(0)], f"{name}.rows", HALF)
            return e.op(node, "Add", [found, self._half(node, mask)], name, HALF)

        return self._once(("relative", mask, origin, rows.shape, rows.tobytes()), make)

    def _spread(self, node: ir.Node, mask: ir.Value) -> ir.Value:
        """A mask ``[B, 1, 1, S]`` for every query."""
        e, name = self._editor, f"{mask.name}.spread"
        one = e.shape(1)
        parts = [e.shape(1, 1), self.length(node), one]
        shape = e.op(node, "Concat", parts, f"{name}.shape", INT64, axis=0)
        return e.op(node, "Expand", [self._half(node, mask), shape], name, HALF)

    def _half(self, node: ir.Node, mask: ir.Value) -> ir.Value:
        def make() -> ir.Value:
            e = self._editor
            least = e.constant(np.array(MASKED, np.float32), "masked")
            clamped = e.op(node, "Max", [mask, least], f"{mask.name}.clamped", FLOAT)
            return e.op(node, "Cast", [clamped], f"{mask.name}.half", HALF, to=int(HALF))

        return self._once(("half", mask), make)

    def _count(self, node: ir.Node) -> ir.Value:
        """0, 1, ... T' - 1."""

        def make() -> ir.Value:
            e = self._editor
            end = e.op(node, "Squeeze", [self.length(node), e.shape(0)], "new.end", INT64)
            bounds = [e.constant(np.array(n, np.int64), f"number_{n}") for n in (0, 1)]
            return e.op(node, "Range", [bounds[0], end, bounds[1]], "new.range", INT64)

        return self._once(("count",), make)

    def _look_up(self, node: ir.Node, rows: Array, places: list[ir.Value]) -> ir.Value:
        """Columns of a table at the difference of two places, no further than it reaches."""
        e, name = self._editor, f"{node.name}.bias"
        index = e.op(node, "Sub", places, f"{name}.distance", INT64)
        ends = [e.constant(np.array(n, np.int64), f"number_{n}") for n in (0, rows.shape[1] - 1)]
        index = e.op(node, "Clip", [index, *ends], f"{name}.index", INT64)
        stored = e.constant(np.maximum(rows, MASKED).astype(np.float16), f"{name}.table")
        return e.op(node, "Gather", [stored, index], f"{name}.entries", HALF, axis=1)

    def _once(self, key: tuple[object, ...], make: Callable[[], ir.Value]) -> ir.Value:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _table(node: ir.Node) -> Array:
    found = table(node.inputs[-1])
    if found is None:
        raise RefusalError(node, "its bias is no constant table")
    return found


def _causal_rows(rows: Array, origin: int) -> Array:
    """What is added at distances of 0 and more, behind a column that hides what comes later."""
    reach = max(rows.shape[1] - origin, 1)
    distance = (np.arange(reach) + origin).clip(0, rows.shape[1] - 1)
    hidden = np.full((len(rows), 1), MASKED, np.float32)
    return np.concatenate([hidden, rows[:, distance]], axis=1)
