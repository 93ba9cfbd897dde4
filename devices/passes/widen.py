"""Weights that are stored in 16 bits as what graphs compute with."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from edgedec.devices.passes.change import replace

NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def widen(graph: ir.Graph) -> None:
    """Let initializers of 16 bits be float32, in place, where a cast to it alone reads them."""
    for node in list(graph):
        stored = node.inputs[0] if (node.domain, node.op_type) == ("", "Cast") else None
        if (
            stored is None
            or not stored.is_initializer()
            or stored.dtype not in NARROW
            or node.attributes["to"].as_int() != ir.DataType.FLOAT
            or len(stored.uses()) != 1
        ):
            continue
        narrow, name = stored.const_value, str(stored.name)
        assert narrow is not None
        shape = ir.Shape(narrow.shape.numpy())
        tensor = ir.LazyTensor(
            partial(_read, narrow, name), dtype=ir.DataType.FLOAT, shape=shape, name=name
        )
        wide = ir.Value(
            name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        replace(graph, node.outputs[0], wide)
        graph.remove(node, safe=True)
        del graph.initializers[name]
        graph.register_initializer(wide)


def _read(narrow: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    return ir.Tensor(narrow.numpy().astype(np.float32), name=name)
