"""Integers that stand for activations: scale and zero point from a range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgedec.devices.npu.precision.ranges import Range, check_range
from edgedec.runtime.manifest import Grid

SMALLEST = 1e-10
"""Width that a range has at least: what was always 0 needs some scale."""


@dataclass(frozen=True)
class GridType:
    """A type of integers; symmetric ones have zero point 0 and leave their lowest integer out."""

    dtype: ir.DataType
    lowest: int
    highest: int
    symmetric: bool


@dataclass(frozen=True)
class Cell:
    """The grid of a value, and its type of integers."""

    grid: Grid
    kind: GridType


U8 = GridType(ir.DataType.UINT8, 0, 255, symmetric=False)
U16 = GridType(ir.DataType.UINT16, 0, 65535, symmetric=False)
S16 = GridType(ir.DataType.INT16, -32767, 32767, symmetric=True)
KV_TYPES = {"u8": U8, "s16": S16}
"""Types of keys and values."""


def make_grid(found: Range, kind: GridType, name: str) -> Grid:
    """The finest grid of a type that reaches from one end of a range to the other, and has 0.

    Args:
        found: the range.
        kind: the type.
        name: whose range it is, for messages.

    Raises:
        InputError: an end is infinite, or no number.
    """
    check_range(found, name)
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    if kind.symmetric:
        return Grid(float(np.float32(max(high, -low, SMALLEST) / kind.highest)), 0)
    scale = float(np.float32(max(high - low, SMALLEST) / (kind.highest - kind.lowest)))
    return Grid(scale, int(np.clip(round(kind.lowest - low / scale), kind.lowest, kind.highest)))


def limits(cell: Cell) -> Range:
    """The least and the greatest number that a grid has."""
    grid, kind = cell.grid, cell.kind
    return (
        (kind.lowest - grid.zero_point) * grid.scale,
        (kind.highest - grid.zero_point) * grid.scale,
    )


def grid_tensors(
    grid: Grid, kind: GridType, name: str
) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    """Scale and zero point as the operators want them."""
    zero = np.array(grid.zero_point, kind.dtype.numpy())
    return (
        ir.tensor(np.float32(grid.scale), name=f"{name}.scale"),
        ir.tensor(zero, name=f"{name}.zero"),
    )
