"""Which values of static graphs must lie on one grid, and of which type of integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from edgedec.devices.npu.model import MASKED, StaticModel
from edgedec.devices.npu.precision.grids import KV_TYPES, U16, Cell, make_grid
from edgedec.devices.npu.precision.ports import CACHE, grid_name
from edgedec.devices.npu.precision.ranges import Range, union
from edgedec.devices.npu.precision.weights import Reader, find_readers
from edgedec.errors import InputError

MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity", "Expand", "Split"}
"""Operators that only move values: what comes out lies on the grid of the first input."""
JOINS = {"Concat"}
"""And here on that of all inputs."""
PICKS = {"Gather"}
"""Picked rows lie on the grid of their table; embeddings are stored otherwise (`embedding`)."""
MOVING = MOVES | JOINS | PICKS
KNOWN = {"Softmax": (0.0, 1.0), "Sigmoid": (0.0, 1.0)}
"""Ranges that need not be observed."""

Key = tuple[str, str]
"""Component and value; caches have one key in all graphs."""
CACHES = ""
"""Stands for the component in keys of caches."""


class Sharing:
    """Values in groups that share a grid (disjoint sets)."""

    def __init__(self) -> None:
        self._up: dict[Key, Key] = {}

    def find(self, key: Key) -> Key:
        """What stands for the group of a value."""
        root = key
        while (up := self._up.setdefault(root, root)) != root:
            root = up
        while self._up[key] != root:
            self._up[key], key = root, self._up[key]
        return root

    def join(self, one: Key, other: Key) -> None:
        """Make one group of the groups of two values."""
        self._up[self.find(other)] = self.find(one)

    def groups(self) -> dict[Key, list[Key]]:
        """What stands for each group -> its values, of all that were named so far."""
        found: dict[Key, list[Key]] = {}
        for item in list(self._up):
            found.setdefault(self.find(item), []).append(item)
        return found


def key(component: str, value: ir.Value) -> Key:
    """What a value is called here."""
    name = str(value.name)
    return (CACHES, grid_name(name)) if CACHE.fullmatch(name) else (component, name)


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is one of those that become integers."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def assign_cells(
    model: StaticModel, kv: str, ranges: Mapping[str, Mapping[str, Range]]
) -> dict[Key, Cell]:
    """A grid for every float32 value that a model's graphs read or compute.

    Keys and values, of caches and within the encoder, get the type ``kv``: the second input of a
    product of two computed values would be cut to 8 bits anyway if it were uint16. All else is
    uint16.

    Raises:
        InputError: the range of a group of values was not observed.
    """
    sharing = Sharing()
    found: dict[Key, list[Range]] = {}
    keys: set[Key] = set()
    for component, part in model.models.items():
        weights = {id(reader.stored): reader for reader in find_readers(part.graph)}
        for value in _values(part.graph):
            if id(value) in weights:
                continue
            sharing.find(key(component, value))
            seen = _range(value, ranges.get(component, {}))
            if seen is not None:
                found.setdefault(key(component, value), []).append(seen)
        for node in part.graph:
            for one, other in _shared(node, weights):
                sharing.join(key(component, one), key(component, other))
        keys |= {key(component, value) for value in _seconds(part.graph)}
    return _cells(sharing, found, keys, kv)


def _cells(
    sharing: Sharing, found: Mapping[Key, list[Range]], keys: set[Key], kv: str
) -> dict[Key, Cell]:
    cells = {}
    for members in sharing.groups().values():
        seen = [one for item in members for one in found.get(item, [])]
        if not seen:
            raise InputError(
                f"no text was run to see the range of {members[0][1]!r}: give some with --calib, "
                f"or choose a precision that needs none (--quant nbits8)."
            )
        kind = U16 if keys.isdisjoint(members) else KV_TYPES[kv]
        cell = Cell(make_grid(union(seen), kind, members[0][1]), kind)
        cells.update(dict.fromkeys(members, cell))
    return cells


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from filter(is_float, graph.inputs)
    yield from filter(is_float, graph.initializers.values())
    for node in graph:
        yield from filter(is_float, node.outputs)


def _range(value: ir.Value, ranges: Mapping[str, Range]) -> Range | None:
    if value.is_initializer() and value.const_value is not None:
        values = value.const_value.numpy()
        return float(np.min(values)), float(np.max(values))
    node = value.producer()
    if node is not None and node.op_type in KNOWN:
        return KNOWN[node.op_type]
    seen = ranges.get(str(value.name))
    if seen is not None and value.is_graph_input() and str(value.name).endswith(".bias"):
        # the next text may have to be masked even if this had not
        return union([seen, (MASKED, 0.0)])
    return seen


def _shared(node: ir.Node, weights: Mapping[int, Reader]) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Pairs of values that must share a grid because of a node."""
    if node.op_type in JOINS:
        values = [*node.inputs, *node.outputs]
    elif node.op_type in MOVES or (node.op_type in PICKS and id(node.inputs[0]) not in weights):
        values = [node.inputs[0], *node.outputs]
    else:
        return
    floats = [value for value in values if value is not None and is_float(value)]
    for value in floats[1:]:
        yield floats[0], value


def _seconds(graph: ir.Graph) -> Iterator[ir.Value]:
    """Keys and values: of caches, and second inputs of products of two computed values."""
    yield from (v for v in [*graph.inputs, *graph.outputs] if CACHE.fullmatch(str(v.name)))
    for node in graph:
        value = node.inputs[1] if node.op_type == "MatMul" else None
        if value is not None and not value.is_initializer():
            yield value
