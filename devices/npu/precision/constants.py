"""Constants that passes over several graphs make: each once, whoever reads it."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.model import StaticModel
from edgedec.devices.npu.precision.weights import Weight


class Packed:
    """What weights became, so that graphs that share one share its packed form.

    Args:
        model: the model whose weights they are.
    """

    def __init__(self, model: StaticModel) -> None:
        self.model = model
        self._made: dict[Hashable, tuple[ir.TensorProtocol, ...]] = {}

    def get(
        self,
        weight: Weight,
        kind: str,
        pack: Callable[[NDArray[np.float32]], tuple[ir.TensorProtocol, ...]],
    ) -> tuple[ir.TensorProtocol, ...]:
        """The tensors that ``pack`` makes of a weight, from the first call of this kind on."""
        key = (weight.name, kind)
        if key not in self._made:
            self._made[key] = pack(weight.read(self.model))
        return self._made[key]


def add_tensor(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """The graph's constant of that tensor's name, new if there is none."""
    name = str(tensor.name)
    if name not in graph.initializers:
        graph.register_initializer(
            ir.Value(
                name=name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        )
    return graph.initializers[name]


def remove_unread(graph: ir.Graph) -> None:
    """Drop constants that nothing reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
