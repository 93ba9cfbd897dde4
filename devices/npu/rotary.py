"""Rotary positions as multiplications by tables."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.emit import Emitter
from edgedec.devices.passes.match import attribute
from edgedec.devices.passes.refusal import RefusalError

Array = NDArray[np.float32]


def rotary(emitter: Emitter, node: ir.Node) -> None:
    """Rotation of halves: ``x * [cos, cos] + [x2, x1] * [-sin, sin]`` for every head.

    The angles' cosines and sines, which the graph computed, are constants or tables here.
    """
    plain = {"interleaved": 0, "rotary_embedding_dim": 0}
    heads = attribute(node, "num_heads", 0)
    if any(attribute(node, name, value) != value for name, value in plain.items()) or not heads:
        raise RefusalError(node, "only rotations of whole heads by halves are known")
    if len(node.inputs) != 3:
        raise RefusalError(node, "its cosines and sines are picked by another input")
    w, name, x = emitter.writer, str(node.name), emitter.read(node.inputs[0])
    cos, sin = (_angles(emitter, node, value) for value in node.inputs[1:])
    double = _by_head(emitter, node.inputs[1], np.concatenate([cos, cos], -1), "cos")
    signed = _by_head(emitter, node.inputs[2], np.concatenate([-sin, sin], -1), "sin")
    width = 2 * cos.shape[-1]
    count = emitter.count
    split = w.reshape(x, [1, count, heads, width], f"{name}.split")
    first, second = w.ops("Split", [split], f"{name}.halves", 2, axis=-1, num_outputs=2)
    swapped = w.op("Concat", [second, first], f"{name}.swapped", axis=-1)
    turned = w.op("Mul", [split, double], f"{name}.cos")
    crossed = w.op("Mul", [swapped, signed], f"{name}.sin")
    total = w.op("Add", [turned, crossed], f"{name}.sum")
    emitter.give(node.outputs[0], w.reshape(total, [1, count, heads * width], name))


def _angles(emitter: Emitter, node: ir.Node, value: ir.Value | None) -> Array:
    """Cosines or sines ``[positions, half]``."""
    for known in (emitter.constants, emitter.tables):
        if value in known:
            found: Array = known[value].reshape(-1, known[value].shape[-1])
            return found
    raise RefusalError(node, "its angles depend on more than positions")


def _by_head(emitter: Emitter, value: ir.Value | None, rows: Array, name: str) -> ir.Value:
    """Rows for the positions of the tokens, ``[1, tokens, 1, width]``."""
    w = emitter.writer
    if value in emitter.constants:
        return w.constant(rows[None, :, None], f"rotary.{name}")
    return emitter.look_up(w.constant(rows[:, None], f"rotary.{name}.table"), f"rotary.{name}")
