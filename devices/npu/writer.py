"""A graph of fixed shapes under construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.model import Target

IR_VERSIONS = {21: 10, 23: 11}
"""Opset -> the first version of ONNX's format that has it."""


class Writer:
    """Writes nodes one after the other; values are called what their node is called.

    Args:
        name: of the graph.
        target: whose operators are written.

    Attributes:
        suffix: ends the name of every node, for nodes that are written several times.
    """

    def __init__(self, name: str, target: Target) -> None:
        self.target = target
        self.suffix = ""
        self.graph = ir.Graph([], [], nodes=[], name=name, opset_imports={"": target.opset})
        self._names: set[str] = set()
        self._kept: dict[ir.Value, ir.Value] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """Declare an input of the graph."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self._names.add(name)
        self.graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str) -> None:
        """Declare a value an output of the graph, by a name of its own."""
        value.name = name
        self.graph.outputs.append(value)

    def op(
        self, op_type: str, inputs: Sequence[ir.Value], name: str, **attributes: Any
    ) -> ir.Value:
        """Write a standard node of one output."""
        return self.ops(op_type, inputs, name, 1, **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[ir.Value], name: str, outputs: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Write a standard node of several outputs."""
        found = ir.convenience.convert_attributes(attributes)
        return self.add(op_type, inputs, name, found, outputs)

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Sequence[ir.Attr],
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        """Write a standard node with attributes as they are."""
        unique = self._unique(name + self.suffix)
        node = ir.Node("", op_type, inputs, attributes, num_outputs=outputs, name=unique)
        for i, value in enumerate(node.outputs):
            value.name = unique if outputs == 1 else f"{unique}.{i}"
        self.graph.append(node)
        return node.outputs

    def reshape(self, value: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
        """``value`` in another shape."""
        at = self.constant(np.array(shape, np.int64), "shape_" + "_".join(map(str, shape)))
        return self.op("Reshape", [value, at], name)

    def slice(self, value: ir.Value, bounds: Mapping[int, tuple[int, int]], name: str) -> ir.Value:
        """The part of a value from a first place to before a last one along each of some axes."""
        firsts, lasts = zip(*bounds.values(), strict=True)
        at = [
            self.constant(np.array(n, np.int64), "at_" + "_".join(map(str, n)))
            for n in (firsts, lasts, tuple(bounds))
        ]
        return self.op("Slice", [value, *at], name)

    def constant(self, values: NDArray[Any], name: str) -> ir.Value:
        """A constant; equal ones are one."""
        key = str(values.dtype), values.shape, values.tobytes()
        if key not in self._constants:
            self._constants[key] = self._register(ir.tensor(values), name)
        return self._constants[key]

    def keep(self, value: ir.Value) -> ir.Value:
        """An initializer of another graph, by the same name."""
        if value not in self._kept:
            tensor = value.const_value
            assert tensor is not None
            self._kept[value] = self._register(tensor, str(value.name))
        return self._kept[value]

    def model(self, like: ir.Model) -> ir.Model:
        """The finished model, by the producer of another one."""
        return ir.Model(
            self.graph,
            ir_version=IR_VERSIONS[self.target.opset],
            producer_name=like.producer_name,
            producer_version=like.producer_version,
        )

    def _register(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        value = ir.Value(
            name=self._unique(name),
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def _unique(self, name: str) -> str:
        number, unique = 1, name
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        return unique
