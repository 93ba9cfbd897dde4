"""Emit nodes whose names are module paths, with weights that are read only when they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript import GraphBuilder

from edgedec.export.weights import Weights

OPSET = 24
IR_VERSION = 11
STORAGE = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
}


class Builder:
    """One graph under construction.

    Args:
        name: the graph's name.
        weights: tensors by module path.
        storage: how weight matrices are stored (``fp32``, ``fp16``, ``bf16``); graphs compute in
            fp32 whatever the storage.
    """

    def __init__(self, name: str, weights: Weights, storage: str) -> None:
        self._graph = ir.Graph([], [], nodes=[], name=name, opset_imports={"": OPSET})
        self._builder = GraphBuilder(self._graph)
        self._weights = weights
        self._storage = STORAGE[storage]
        self._scope: list[str] = []
        self._used: set[str] = set()
        self._initializers: dict[str, ir.Value] = {}

    @contextmanager
    def scope(self, *names: str | int) -> Iterator[None]:
        """Put what is emitted inside under a module, e.g. ``scope("decoder", 3, "self_attn")``."""
        self._scope.extend(str(name) for name in names)
        yield
        del self._scope[-len(names) :]

    def path(self, name: str) -> str:
        """The module path of ``name`` in the current scope."""
        return ".".join((*self._scope, name))

    def op(
        self, op_type: str, *inputs: Any, name: str | None = None, **attributes: Any
    ) -> ir.Value:
        """Emit a node with one output. Numbers among the inputs become constants of their type."""
        (output,) = self.ops(op_type, *inputs, outputs=1, name=name, **attributes)
        return output

    def ops(
        self, op_type: str, *inputs: Any, outputs: int, name: str | None = None, **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """Emit a node with several outputs."""
        path = self._unique(self.path(name or op_type))
        emit = getattr(self._builder.op, op_type)
        values = emit(*inputs, _name=path, _outputs=outputs, **attributes)
        values = (values,) if outputs == 1 else tuple(values)
        for i, value in enumerate(values):
            value.name = path if outputs == 1 else f"{path}.{i}"
        node = values[0].producer()
        assert node is not None
        node.metadata_props.clear()  # the name says it all, and the file stays small
        return values

    def weight(self, name: str, shape: tuple[int, ...], *, transpose: bool = False) -> ir.Value:
        """A weight matrix of the current scope, cast to fp32 where it is stored narrower.

        Args:
            name: tensor below the scope, such as ``q.weight``.
            shape: its shape in the checkpoint; a mismatch raises CheckpointError.
            transpose: store it as ``[in, out]``, which ``MatMul`` wants.
        """
        path = self.path(name)
        tensor = self._weights.expect(path, shape)
        if transpose:
            tensor = tensor.map(lambda w: np.ascontiguousarray(w.T), shape[::-1])
        if path not in self._initializers:
            stored = self._initializer(path, tensor.shape, tensor.read, self._storage)
            if self._storage != ir.DataType.FLOAT:
                with self._root_scope():
                    stored = self.op("Cast", stored, name=f"{path}.cast", to=ir.DataType.FLOAT)
            self._initializers[path] = stored
        return self._initializers[path]

    def vector(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        """A norm's weight or a bias of the current scope; always stored in fp32."""
        path = self.path(name)
        if path not in self._initializers:
            tensor = self._weights.expect(path, shape)
            self._initializers[path] = self._initializer(
                path, shape, tensor.read, ir.DataType.FLOAT
            )
        return self._initializers[path]

    def table(self, name: str, values: NDArray[Any]) -> ir.Value:
        """A computed constant, such as a folded position bias."""
        path = self.path(name)
        if path not in self._initializers:
            dtype = ir.DataType.from_numpy(values.dtype)
            self._initializers[path] = self._initializer(path, values.shape, lambda: values, dtype)
        return self._initializers[path]

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this tensor in the current scope."""
        return self.path(name) in self._weights

    def rows(self, name: str) -> int:
        """Length of a tensor's first axis, where the checkpoint alone knows it."""
        return self._weights[self.path(name)].shape[0]

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's values, to compute a table from."""
        return self._weights[self.path(name)].read()

    def input(self, name: str, dtype: ir.DataType, shape: list[str | int]) -> ir.Value:
        """Declare a graph input."""
        return self._builder.input(name, dtype, shape)

    def output(
        self, name: str, value: ir.Value, dtype: ir.DataType, shape: list[str | int]
    ) -> None:
        """Declare a graph output, renaming the value."""
        value.name = name
        value.dtype = dtype
        value.shape = ir.Shape(shape)
        self._graph.outputs.append(value)

    def model(self, producer: str, version: str) -> ir.Model:
        """The finished model."""
        return ir.Model(
            self._graph, ir_version=IR_VERSION, producer_name=producer, producer_version=version
        )

    def _initializer(self, name: str, shape: Any, read: Any, dtype: ir.DataType) -> ir.Value:
        def load() -> ir.TensorProtocol:
            return ir.Tensor(read().astype(dtype.numpy()), dtype=dtype, name=name)

        tensor = ir.LazyTensor(load, dtype=dtype, shape=ir.Shape(shape), name=name)
        return self._builder.initializer(tensor, name)

    def _unique(self, path: str) -> str:
        number, unique = 1, path
        while unique in self._used:
            number += 1
            unique = f"{path}_{number}"
        self._used.add(unique)
        return unique

    @contextmanager
    def _root_scope(self) -> Iterator[None]:
        kept, self._scope = self._scope, []
        yield
        self._scope = kept
