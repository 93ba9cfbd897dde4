"""Changes to a graph whose values have types of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.gpu.lowering.model import FLOAT


class Editor:
    """Writes nodes into a graph in place; values are called what their node is called.

    A value that is computed in 16 bits is cast to float32 where it replaces one of the graph's, so
    that everything in between stays as it was. `cast` sees through that.

    Args:
        graph: the one to change.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._names = {str(value.name) for value in graph.inputs}
        self._names |= set(graph.initializers)
        self._names |= {str(value.name) for node in graph for value in node.outputs}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._stored: dict[tuple[Hashable, ir.DataType], ir.Value] = {}

    def op(
        self,
        place: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtype: ir.DataType,
        **attributes: Any,
    ) -> ir.Value:
        """Write a standard node of one output before another node."""
        return self.ops(place, op_type, inputs, name, (dtype,), **attributes)[0]

    def ops(
        self,
        place: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtypes: Sequence[ir.DataType],
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Write a node with outputs of some types before another node."""
        node = self._node(op_type, inputs, name, dtypes, domain, attributes)
        self.graph.insert_before(place, node)
        return node.outputs

    def constant(self, values: NDArray[Any] | ir.TensorProtocol, name: str) -> ir.Value:
        """A constant; equal arrays are one."""
        if isinstance(values, np.ndarray):
            key = str(values.dtype), values.shape, _digest(values)
            if key not in self._constants:
                self._constants[key] = self._register(ir.tensor(values), name)
            return self._constants[key]
        return self._register(values, name)

    def shape(self, *lengths: int) -> ir.Value:
        """A constant shape, or list of axes."""
        name = "shape_" + "_".join(map(str, lengths))
        return self.constant(np.array(lengths, np.int64), name)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A value in another type, right where it is computed."""
        if value.dtype == dtype:
            return value
        producer = value.producer()
        if producer is not None and producer.op_type == "Cast" and value.dtype == FLOAT:
            before = producer.inputs[0]
            if before is not None and before.dtype == dtype:
                return before
        key = value, dtype
        if key not in self._casts:
            name = f"{value.name}.{dtype.name.lower()}"
            node = self._node("Cast", [value], name, (dtype,), "", {"to": int(dtype)})
            if producer is not None:
                self.graph.insert_after(producer, node)
            else:
                self.graph.insert_before(self.graph[0], node)
            node.outputs[0].shape = value.shape
            self._casts[key] = node.outputs[0]
        return self._casts[key]

    def stored(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """An initializer in another type, read when it is written to a file.

        What is one tensor in the bundle's file, as a tied embedding and head are, stays one.
        """
        tensor = value.const_value
        assert tensor is not None
        if tensor.dtype == dtype:
            return value
        key = _place(value), dtype
        if key not in self._stored:
            name = self._unique(f"{value.name}.{dtype.name.lower()}")
            lazy = ir.LazyTensor(
                partial(_converted, tensor, dtype, name),
                dtype=dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=name,
            )
            self._stored[key] = self._register(lazy, name)
        return self._stored[key]

    def put(self, place: ir.Node, made: ir.Value, old: ir.Value) -> None:
        """Let a value take another one's place, cast to float32 before ``place`` if need be."""
        if made.dtype != old.dtype:
            assert old.dtype == FLOAT
            made = self.op(place, "Cast", [made], str(old.name), FLOAT, to=int(FLOAT))
        if made.shape is None:
            made.shape = old.shape
        self.swap(old, made)

    def swap(self, old: ir.Value, new: ir.Value) -> None:
        """Let whatever reads ``old`` read ``new``, of whatever type; and graph outputs be it."""
        for i, output in enumerate(self.graph.outputs):
            if output is old:
                new.name, old.name = old.name, self._unique(f"{old.name}.old")
                self.graph.outputs[i] = new
        for use in list(old.uses()):
            use.node.replace_input_with(use.idx, new)

    def swap_output(self, old: ir.Value, new: ir.Value) -> None:
        """Let a graph output be another value, under the name of the old one."""
        if new is old:
            return
        if new.shape is None:
            new.shape = old.shape
        new.name, old.name = old.name, self._unique(f"{old.name}.old")
        for i, output in enumerate(self.graph.outputs):
            if output is old:
                self.graph.outputs[i] = new

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtypes: Sequence[ir.DataType],
        domain: str,
        attributes: dict[str, Any],
    ) -> ir.Node:
        unique = self._unique(name)
        node = ir.Node(
            domain,
            op_type,
            inputs,
            ir.convenience.convert_attributes(attributes),
            num_outputs=len(dtypes),
            name=unique,
        )
        for i, (value, dtype) in enumerate(zip(node.outputs, dtypes, strict=True)):
            value.name = unique if len(dtypes) == 1 else self._unique(f"{unique}.{i}")
            value.type = ir.TensorType(dtype)
        return node

    def _register(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        unique = name if tensor.name == name and name in self._names else self._unique(name)
        value = ir.Value(
            name=unique,
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


def _digest(array: NDArray[Any]) -> bytes:
    """What stands for an array's numbers, which would be in memory twice."""
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).digest()


def _place(value: ir.Value) -> Hashable:
    """Where an initializer's numbers are, and in what shape."""
    tensor = value.const_value
    if isinstance(tensor, ir.ExternalTensor):
        return tensor.path, tensor.offset, tensor.dtype, tensor.shape.numpy()
    return value


def _converted(tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype, name=name)
