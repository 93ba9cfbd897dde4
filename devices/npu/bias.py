"""The tables that attention's bias is read from, by distance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.model import MASKED
from edgedec.devices.passes.match import attribute, table
from edgedec.devices.passes.refusal import RefusalError

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tables:
    """The distinct tables of a graph's attention, one below the other.

    Attributes:
        rows: ``[h, 2 * reach]``, as `BiasTable` describes it.
        place: node -> the rows that it reads, from first to last.
    """

    rows: Array
    place: dict[ir.Node, tuple[int, int]]

    @property
    def heads(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def silent(self) -> bool:
        """Whether nothing is ever added, so that only a mask is left."""
        return not self.rows.any()


def find_tables(nodes: Iterable[ir.Node], reach: int) -> Tables:
    """The tables of attention nodes of ours, whose last input they are.

    Args:
        nodes: DecodeAttention or MemoryAttention.
        reach: distances run from ``-reach`` to ``reach - 1``.

    Raises:
        RefusalError: a table that is no constant.
    """
    found: dict[bytes, tuple[int, int]] = {}
    rows: list[Array] = []
    place = {}
    for node in nodes:
        values = table(node.inputs[-1])
        if values is None:
            raise RefusalError(node, "its bias is no constant table")
        by = by_distance(values, int(attribute(node, "origin")), reach)
        first = sum(map(len, rows))
        place[node] = found.setdefault(by.tobytes(), (first, first + len(by)))
        if place[node][0] == first:
            rows.append(by)
    joined = np.concatenate(rows) if rows else np.zeros((1, 2 * reach), np.float32)
    return Tables(joined, place)


def by_distance(values: Array, origin: int, reach: int) -> Array:
    """``values[h, clip(distance + origin)]`` at ``reach - 1 - distance``, no less than `MASKED`."""
    distance = reach - 1 - np.arange(2 * reach)
    picked = values[:, (distance + origin).clip(0, values.shape[1] - 1)]
    return np.maximum(picked, np.float32(MASKED))
