"""Attention of fixed shapes: heads as an axis, scores, softmax, mix.

Heads of keys and values are the axis; the queries of a group, which read the same, are rows below
each other. With one token, to split and to join heads is to reshape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgedec.devices.npu.writer import Writer


@dataclass(frozen=True)
class Heads:
    """``query`` heads that share ``kv`` heads of keys and values, each ``width`` channels wide."""

    query: int
    kv: int
    width: int

    @property
    def group(self) -> int:
        """Query heads that read the same keys."""
        return self.query // self.kv


def queries(w: Writer, x: ir.Value, heads: Heads, count: int, name: str) -> ir.Value:
    """``x [1, count, query * width]`` as ``[1, kv, group * count, width]``."""
    rows = [1, heads.kv, heads.group * count, heads.width]
    if count == 1:
        return w.reshape(x, rows, f"{name}.heads")
    split = w.reshape(x, [1, count, heads.query, heads.width], f"{name}.split")
    turned = w.op("Transpose", [split], f"{name}.heads", perm=[0, 2, 1, 3])
    return turned if heads.group == 1 else w.reshape(turned, rows, f"{name}.rows")


def keys(w: Writer, x: ir.Value, heads: Heads, count: int, name: str) -> ir.Value:
    """``x [1, count, kv * width]`` as ``[1, kv, width, count]``."""
    if count == 1:
        return w.reshape(x, [1, heads.kv, heads.width, 1], f"{name}.heads")
    split = w.reshape(x, [1, count, heads.kv, heads.width], f"{name}.split")
    return w.op("Transpose", [split], f"{name}.heads", perm=[0, 2, 3, 1])


def values(w: Writer, x: ir.Value, heads: Heads, count: int, name: str) -> ir.Value:
    """``x [1, count, kv * width]`` as ``[1, kv, count, width]``."""
    if count == 1:
        return w.reshape(x, [1, heads.kv, 1, heads.width], f"{name}.heads")
    split = w.reshape(x, [1, count, heads.kv, heads.width], f"{name}.split")
    return w.op("Transpose", [split], f"{name}.heads", perm=[0, 2, 1, 3])


def bias_rows(
    w: Writer, bias: ir.Value, shape: tuple[int, int, int], heads: Heads, name: str
) -> ir.Value:
    """A bias ``[1, *shape]`` as the rows of queries want it.

    Args:
        w: where it is written.
        bias: what to add to scores.
        shape: its heads (of queries, or 1), its rows (tokens, or 1), and its columns (keys).
        heads: those of the attention.
        name: what the node is called.
    """
    count, rows, columns = shape
    if heads.group == 1 or (count == 1 and rows == 1):
        return bias
    if count == 1:
        return w.op("Concat", [bias] * heads.group, name, axis=2)
    return w.reshape(bias, [1, heads.kv, heads.group * rows, columns], name)


def attend(
    w: Writer,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    bias: ir.Value,
    heads: Heads,
    count: int,
    scale: float,
    name: str,
) -> ir.Value:
    """Attention ``[1, count, query * width]``.

    Args:
        w: where it is written.
        query: ``[1, count, query * width]``.
        key: ``[1, kv, width, L]``.
        value: ``[1, kv, L, width]``.
        bias: added to the scores, as `bias_rows` gives it.
        heads: how channels are split.
        count: tokens that ask.
        scale: of the scores. It is applied to the queries, which are fewer and keep the scores
            within what 16 bits hold.
        name: what the last node is called, and what the others begin with.
    """
    if scale != 1.0:
        factor = w.constant(np.array(scale, np.float32), f"scale_{scale}")
        query = w.op("Mul", [query, factor], f"{name}.scale")
    rows = queries(w, query, heads, count, f"{name}.query")
    scores = w.op("MatMul", [rows, key], f"{name}.scores")
    masked = w.op("Add", [scores, bias], f"{name}.masked")
    weights = w.op("Softmax", [masked], f"{name}.weights", axis=-1)
    mixed = w.op("MatMul", [weights, value], f"{name}.mixed")
    if count > 1:
        if heads.group > 1:
            split = [1, heads.query, count, heads.width]
            mixed = w.reshape(mixed, split, f"{name}.ungrouped")
        mixed = w.op("Transpose", [mixed], f"{name}.joined", perm=[0, 2, 1, 3])
    return w.reshape(mixed, [1, count, heads.query * heads.width], name)
