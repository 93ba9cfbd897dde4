"""Activations as integers of 16 bits, weights of 8 or 4: QuantizeLinear and DequantizeLinear.

Every float value goes through integers once, every constant is one; ONNX Runtime computes exactly
that on the CPU, and a compiler for the hardware sees which operators are integer ones. Own passes
and not ONNX Runtime's quantiser, because its grids go the wrong way: a cache's grid is to be that
of the projection that fills it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgedec.devices.npu.model import StaticModel
from edgedec.devices.npu.precision.channels import block_weight, channel_weight
from edgedec.devices.npu.precision.constants import Packed, add_tensor
from edgedec.devices.npu.precision.embedding import use_rows
from edgedec.devices.npu.precision.grids import (
    S16,
    U16,
    Cell,
    GridType,
    grid_tensors,
    limits,
    make_grid,
)
from edgedec.devices.npu.precision.ports import CACHE
from edgedec.devices.npu.precision.precisions import Precision, block_size, weight_bits
from edgedec.devices.npu.precision.ranges import Range
from edgedec.devices.npu.precision.sharing import (
    CACHES,
    MOVING,
    Key,
    assign_cells,
    is_float,
    key,
)
from edgedec.devices.npu.precision.weights import Reader, Weight, find_readers
from edgedec.devices.passes.change import take_over
from edgedec.devices.passes.match import constant
from edgedec.runtime.manifest import Grid

S32 = GridType(ir.DataType.INT32, -(1 << 31) + 1, (1 << 31) - 1, symmetric=True)


def quantize(
    model: StaticModel,
    weights: list[Weight],
    spec: Precision,
    *,
    kv: str,
    eight: Collection[str],
    ranges: Mapping[str, Mapping[str, Range]],
) -> None:
    """Make integers of a model's activations and weights, in place.

    Raises:
        InputError: the range of a value was not observed.
    """
    cells = assign_cells(model, kv, ranges)
    packed = Packed(model)
    by_name = {(weight.name, weight.role == "embedding"): weight for weight in weights}
    for component, part in model.models.items():
        activations = _Activations(part.graph, component, cells)
        matrices: dict[str, ir.Value] = {}  # unrolled steps read the same one
        for reader in find_readers(part.graph):
            weight = by_name[str(reader.stored.name), reader.role == "embedding"]
            bits = weight_bits(spec, weight, eight)
            if weight.role == "embedding":
                use_rows(part.graph, reader, weight, bits, packed)
                continue
            if (
                weight.name not in matrices
                and spec.blocks
                and bits == 4
                and block_size(weight.columns)
            ):
                matrices[weight.name] = block_weight(part.graph, weight, packed)
            elif weight.name not in matrices:
                matrices[weight.name] = channel_weight(part.graph, weight, bits, packed)
            activations.use(reader, matrices[weight.name])
        activations.convert()
    ports = {name: cell.grid for (component, name), cell in cells.items() if component == CACHES}
    model.static = replace(model.static, grids={**model.static.grids, **ports})


class _Activations:
    """The float values of a graph, which become integers.

    Args:
        graph: changed in place.
        component: its name.
        cells: the grids of the values that it had in the beginning; there may be more by now.
    """

    def __init__(self, graph: ir.Graph, component: str, cells: Mapping[Key, Cell]) -> None:
        self.graph = graph
        self._component = component
        self._cells = dict(cells)
        self._read: dict[ir.Value, Cell] = {}
        """Numbers that integers were made again -> their grid."""
        self._constants: dict[tuple[ir.Value, Cell], ir.Value] = {}

    def use(self, reader: Reader, matrix: ir.Value) -> None:
        """Let a product read another matrix, ``[columns, rows]``; Gemm becomes MatMul and Add."""
        node = reader.node
        if node.op_type == "MatMul":
            node.replace_input_with(1, matrix)
            return
        x, bias = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
        product = ir.Node("", "MatMul", [x, matrix], num_outputs=1, name=node.name)
        if bias is None:
            take_over(self.graph, product, [node], node)
            return
        inner, cell = product.outputs[0], self._cell(node.outputs[0])
        assert cell is not None
        inner.name, inner.type = f"{node.outputs[0].name}.product", node.outputs[0].type
        inner.shape = node.outputs[0].shape
        low, high = limits(cell)
        added = constant(bias)
        assert added is not None
        ends = low - float(added.max()), high - float(added.min())
        wide = make_grid(ends, cell.kind, str(inner.name))
        self._cells[self._component, inner.name] = Cell(wide, cell.kind)
        total = ir.Node("", "Add", [inner, bias], num_outputs=1, name=f"{node.name}.bias")
        self.graph.insert_before(node, product)
        take_over(self.graph, total, [node], node)

    def convert(self) -> None:
        """Put integers between all nodes whose outputs have a grid."""
        nodes = list(self.graph)
        first = nodes[0]
        for port in self.graph.inputs:
            cell = self._cell(port)
            if cell is not None:
                self._convert_input(port, cell, first)
        for node in nodes:
            cells = [self._cell(value) for value in node.outputs]
            if any(cells):
                self._convert_constants(node)
            for value, cell in zip(node.outputs, cells, strict=True):
                if cell is not None:
                    self._convert_output(node, value, cell)

    def _cell(self, value: ir.Value) -> Cell | None:
        return self._cells.get(key(self._component, value)) if is_float(value) else None

    def _convert_input(self, port: ir.Value, cell: Cell, first: ir.Node) -> None:
        uses = list(port.uses())
        stored = port
        if not CACHE.fullmatch(str(port.name)):
            stored = self._node("QuantizeLinear", port, cell, str(port.name), first)
        value = self._node("DequantizeLinear", stored, cell, str(port.name), first)
        if stored is port:
            port.type = ir.TensorType(cell.kind.dtype)
        for use in uses:
            use.node.replace_input_with(use.idx, value)

    def _convert_output(self, node: ir.Node, value: ir.Value, cell: Cell) -> None:
        uses = list(value.uses())
        name = str(value.name)
        way = [value]
        if cell.kind is not U16 and node.op_type not in MOVING:
            # a product of uint16 has to be uint16 itself before it can become something else
            wide = Cell(make_grid(limits(cell), U16, name), U16)
            way.append(self._node("QuantizeLinear", way[-1], wide, f"{name}.wide"))
            way.append(self._node("DequantizeLinear", way[-1], wide, f"{name}.wide"))
        stored = self._node("QuantizeLinear", way[-1], cell, name)
        way.append(stored)
        if uses or not CACHE.fullmatch(name):
            way.append(self._node("DequantizeLinear", stored, cell, name))
        last = way[-1]
        for use in uses:
            use.node.replace_input_with(use.idx, last)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                port = stored if CACHE.fullmatch(name) else last
                value.name, port.name = f"{name}.float", name
                self.graph.outputs[index] = port
        self.graph.insert_after(node, [n for v in way[1:] if (n := v.producer()) is not None])

    def _convert_constants(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is None or not value.is_initializer() or not is_float(value):
                continue
            if node.op_type == "LayerNormalization" and index == 1:
                cell = _of_constant(value, S16)
            elif node.op_type == "LayerNormalization":
                cell = self._bias_cell(node)
            else:
                found = self._cell(value)
                assert found is not None
                cell = found
            if (value, cell) not in self._constants:
                self._constants[value, cell] = self._stored(value, cell, node)
            node.replace_input_with(index, self._constants[value, cell])

    def _bias_cell(self, norm: ir.Node) -> Cell:
        """A norm's bias lies on the grid of products of its input and scale."""
        x, scale = norm.inputs[0], norm.inputs[1]
        assert x is not None
        assert scale is not None
        one, other = self._read[x], self._read[scale]
        return Cell(Grid(one.grid.scale * other.grid.scale, 0), S32)

    def _stored(self, value: ir.Value, cell: Cell, place: ir.Node) -> ir.Value:
        """What a constant is as integers, read as numbers."""
        values = constant(value)
        assert values is not None
        kind = cell.kind
        integers = np.rint(values.astype(np.float64) / cell.grid.scale) + cell.grid.zero_point
        tensor = ir.tensor(
            np.clip(integers, kind.lowest, kind.highest).astype(kind.dtype.numpy()),
            name=f"{value.name}.{place.name}" if kind is S32 else f"{value.name}.integers",
        )
        stored = add_tensor(self.graph, tensor)
        return self._node("DequantizeLinear", stored, cell, str(value.name), place)

    def _node(
        self, op_type: str, x: ir.Value, cell: Cell, name: str, place: ir.Node | None = None
    ) -> ir.Value:
        """The output of a new node; it is inserted before ``place``, if any."""
        dequantize = op_type == "DequantizeLinear"
        tensors = grid_tensors(cell.grid, cell.kind, f"{name}.{cell.kind.dtype.name.lower()}")
        constants = [add_tensor(self.graph, tensor) for tensor in tensors]
        suffix = "numbers" if dequantize else "integers"
        node = ir.Node("", op_type, [x, *constants], num_outputs=1, name=f"{name}.{suffix}")
        made = node.outputs[0]
        made.name, made.shape = node.name, x.shape
        made.type = ir.TensorType(ir.DataType.FLOAT if dequantize else cell.kind.dtype)
        if dequantize:
            self._read[made] = cell
        if place is not None:
            self.graph.insert_before(place, node)
        return made


def _of_constant(value: ir.Value, kind: GridType) -> Cell:
    values = constant(value)
    assert values is not None
    ends = float(values.min()), float(values.max())
    return Cell(make_grid(ends, kind, str(value.name)), kind)
