"""Keys and values of float graphs as float16 or uint8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from edgedec.devices.npu.model import StaticModel
from edgedec.devices.npu.precision.constants import add_tensor
from edgedec.devices.npu.precision.grids import KV_TYPES, GridType, grid_tensors, make_grid
from edgedec.devices.npu.precision.ports import cache_ports, grid_name, read_through, write_through
from edgedec.devices.npu.precision.ranges import Range, union
from edgedec.errors import InputError
from edgedec.runtime.manifest import Grid


def use_half_caches(model: StaticModel) -> None:
    """Let keys and values travel as float16, in place."""
    for part in model.models.values():
        graph = part.graph
        inputs, outputs = cache_ports(graph)
        for port in inputs:
            read_through(graph, port, ir.DataType.FLOAT16, _cast(f"{port.name}.cast", _FLOAT))
        for index, port in enumerate(graph.outputs):
            if port in outputs:
                cast = _cast(f"{port.name}.cast", ir.DataType.FLOAT16)
                write_through(graph, index, ir.DataType.FLOAT16, cast)


def use_integer_caches(
    model: StaticModel, kv: str, ranges: Mapping[str, Mapping[str, Range]]
) -> None:
    """Let keys and values travel as integers, in place; the manifest gets their grids.

    Raises:
        InputError: the range of a cache was not observed.
    """
    kind = KV_TYPES[kv]
    grids = cache_grids(model, kind, ranges)
    for part in model.models.values():
        graph = part.graph
        inputs, outputs = cache_ports(graph)
        for port in inputs:
            node = _convert(graph, "DequantizeLinear", port, grids, kind)
            read_through(graph, port, kind.dtype, node)
        for index, port in enumerate(graph.outputs):
            if port in outputs:
                node = _convert(graph, "QuantizeLinear", port, grids, kind)
                write_through(graph, index, kind.dtype, node)
    model.static = replace(model.static, grids={**model.static.grids, **grids})


def cache_grids(
    model: StaticModel, kind: GridType, ranges: Mapping[str, Mapping[str, Range]]
) -> dict[str, Grid]:
    """One grid for a cache and all that is written into it, in whichever graph.

    Raises:
        InputError: the range of a cache was not observed.
    """
    found: dict[str, list[Range]] = {}
    for component, part in model.models.items():
        for port in (value for ports in cache_ports(part.graph) for value in ports):
            name = str(port.name)
            seen = ranges.get(component, {}).get(name)
            found.setdefault(grid_name(name), []).extend([] if seen is None else [seen])
    missing = next((name for name, seen in found.items() if not seen), None)
    if missing is not None:
        raise InputError(
            f"no text was run to see the range of {missing}: give some with --calib, or keep keys "
            f"and values as they are (--kv fp16)."
        )
    return {name: make_grid(union(seen), kind, name) for name, seen in found.items()}


_FLOAT = ir.DataType.FLOAT


def _cast(name: str, dtype: ir.DataType) -> ir.Node:
    return ir.Node("", "Cast", [None], [ir.AttrInt64("to", dtype)], num_outputs=1, name=name)


def _convert(
    graph: ir.Graph, op_type: str, port: ir.Value, grids: Mapping[str, Grid], kind: GridType
) -> ir.Node:
    name = grid_name(str(port.name))
    scale, zero = (add_tensor(graph, t) for t in grid_tensors(grids[name], kind, name))
    verb = "integers" if op_type == "QuantizeLinear" else "numbers"
    return ir.Node("", op_type, [None, scale, zero], num_outputs=1, name=f"{port.name}.{verb}")
