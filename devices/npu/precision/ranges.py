"""What values a graph's activations take: observed on text, value by value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Range = tuple[float, float]
"""The least and the greatest value."""
MARGIN = 1 / 16
"""Room beyond what was seen, of either end: less than a tenth of a bit, where cutting off would
cost whole values."""


def observe(model: ir.Model) -> ir.Model:
    """A copy of a graph that returns every float32 value that it computes, by its own name."""
    copy = model.clone()
    known = {value.name for value in copy.graph.outputs}
    for node in copy.graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and value.name not in known:
                copy.graph.outputs.append(value)
    return copy


class Ranges:
    """The least and the greatest that each value has been so far."""

    def __init__(self) -> None:
        self._found: dict[str, Range] = {}

    def update(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Take what one run was fed or returned into account; integers are passed over."""
        for name, value in values.items():
            if value.dtype.kind != "f" or value.size == 0:
                continue
            found = (float(np.min(value)), float(np.max(value)))
            self._found[name] = union([found, self._found.get(name, found)])

    def found(self) -> dict[str, Range]:
        """Value name -> range, with some room for what other texts bring."""
        room = 1 + MARGIN
        return {name: (low * room, high * room) for name, (low, high) in self._found.items()}


def union(ranges: Iterable[Range]) -> Range:
    """The smallest range that contains some."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)
