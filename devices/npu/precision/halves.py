"""Weights stored as float16; the graph reads them through a Cast and stays float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.errors import InputError

LEAST = 64
"""Constants with fewer values are left as they are."""


def store_halves(graph: ir.Graph) -> None:
    """Store every float32 constant as float16, in place.

    Raises:
        InputError: a constant has values that float16 cannot hold.
    """
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < LEAST:
            continue
        stored = ir.Value(
            name=f"{name}.fp16",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(_half(tensor.numpy(), name), name=f"{name}.fp16"),
        )
        graph.register_initializer(stored)
        del graph.initializers[name]
        cast = ir.Node(
            "",
            "Cast",
            [stored],
            [ir.AttrInt64("to", ir.DataType.FLOAT)],
            num_outputs=1,
            name=f"{name}.float",
        )
        made = cast.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(ir.DataType.FLOAT), value.shape
        graph.insert_before(first, cast)
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, made)


def round_half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values that a matrix has after rounding to float16."""
    return values.astype(np.float16).astype(np.float32)


def _half(values: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(
            f"{name} has values beyond float16's: choose a calibrated precision (--quant w8a16)."
        )
    return half
