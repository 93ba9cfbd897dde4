"""Weights stored as float16; the graph reads them through a Cast and stays float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.precision.constants import add_tensor
from edgedec.errors import InputError

LEAST = 64
"""Constants with fewer values are left as they are."""


def store_halves(graph: ir.Graph) -> None:
    """Store every float32 constant as float16, in place.

    Raises:
        InputError: a constant has values that float16 cannot hold.
    """
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < LEAST:
            continue
        numbers = read_half(graph, ir.tensor(check_half(tensor.numpy(), name), name=f"{name}.fp16"))
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, numbers)
        del graph.initializers[name]


def read_half(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """A float16 constant as float32; whoever asks for one of that name gets the same value."""
    stored = add_tensor(graph, tensor)
    for node in stored.consumers():
        return node.outputs[0]
    cast = ir.Node(
        "",
        "Cast",
        [stored],
        [ir.AttrInt64("to", ir.DataType.FLOAT)],
        num_outputs=1,
        name=f"{tensor.name}.float",
    )
    made = cast.outputs[0]
    made.name, made.type, made.shape = cast.name, ir.TensorType(ir.DataType.FLOAT), stored.shape
    graph.insert_before(graph[0], cast)
    return made


def round_half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values that a matrix has after rounding to float16."""
    return values.astype(np.float16).astype(np.float32)


def check_half(values: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """A weight's values in float16.

    Raises:
        InputError: it has values that float16 cannot hold.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(
            f"{name} has values beyond float16's: choose a calibrated precision (--quant w8a16)."
        )
    return half
