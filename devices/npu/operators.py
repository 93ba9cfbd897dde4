"""Operators that devices lack, of operators that they have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgedec.devices.npu.emit import Emitter, Handler, copy
from edgedec.devices.npu.rotary import rotary
from edgedec.devices.passes.match import attribute
from edgedec.devices.passes.refusal import RefusalError


def swish(emitter: Emitter, node: ir.Node) -> None:
    """``x * sigmoid(x)``."""
    if attribute(node, "alpha", 1.0) != 1.0:
        raise RefusalError(node, "only an alpha of 1 is known")
    w, x = emitter.writer, emitter.read(node.inputs[0])
    gate = w.op("Sigmoid", [x], f"{node.name}.sigmoid")
    emitter.give(node.outputs[0], w.op("Mul", [x, gate], str(node.name)))


def rms_norm(emitter: Emitter, node: ir.Node) -> None:
    """RMSNormalization as it is, or of simpler operators where the target does not know it."""
    w = emitter.writer
    if w.target.rms_norm:
        copy(emitter, node)
        return
    if attribute(node, "axis", -1) != -1:
        raise RefusalError(node, "only a norm over the last axis is known")
    x, scale = (emitter.read(value) for value in node.inputs)
    name = str(node.name)
    epsilon = np.array(attribute(node, "epsilon", 1e-5), np.float32)
    last = w.constant(np.array([-1], np.int64), "axes_-1")
    square = w.op("Mul", [x, x], f"{name}.square")
    mean = w.op("ReduceMean", [square, last], f"{name}.mean", keepdims=1)
    moved = w.op("Add", [mean, w.constant(epsilon, f"epsilon_{epsilon}")], f"{name}.moved")
    root = w.op("Sqrt", [moved], f"{name}.root")
    unit = w.op("Div", [x, root], f"{name}.unit")
    emitter.give(node.outputs[0], w.op("Mul", [unit, scale], name))


COMMON: dict[tuple[str, str], Handler] = {
    ("", "Swish"): swish,
    ("", "RMSNormalization"): rms_norm,
    ("", "RotaryEmbedding"): rotary,
}
"""(domain, operator) -> what writes a node of it, in any graph."""
