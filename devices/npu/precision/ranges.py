"""What values a graph's activations take: observed on text, value by value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.errors import InputError

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
        """Take what one run was fed or returned into account; integers are passed over.

        Raises:
            InputError: a value is infinite, or no number.
        """
        for name, value in values.items():
            if value.dtype.kind != "f" or value.size == 0:
                continue
            found = (float(np.min(value)), float(np.max(value)))
            check_range(found, name)
            self._found[name] = union([found, self._found.get(name, found)])

    def found(self) -> dict[str, Range]:
        """Value name -> range, with some room for what other texts bring."""
        room = 1 + MARGIN
        return {name: (low * room, high * room) for name, (low, high) in self._found.items()}


def check_range(found: Range, name: str) -> None:
    """Refuse ends that no grid reaches.

    Args:
        found: the range.
        name: of the value.

    Raises:
        InputError: an end is infinite, or no number.
    """
    if not (math.isfinite(found[0]) and math.isfinite(found[1])):
        raise InputError(
            f"{name!r} is infinite or no number somewhere, which integers cannot stand for: check "
            "the checkpoint, or let activations stay float (--quant nbits8 --kv fp16)."
        )


def union(ranges: Iterable[Range]) -> Range:
    """The smallest range that contains some."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)
