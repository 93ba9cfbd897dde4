"""Our two attention operators with fixed shapes: which bias they add, and to what keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgedec.devices.npu.bias import Tables
from edgedec.devices.npu.emit import Emitter
from edgedec.devices.npu.heads import Heads, attend, bias_rows, keys, values
from edgedec.devices.npu.writer import Writer
from edgedec.devices.passes.match import attribute, axis, constant
from edgedec.devices.passes.refusal import RefusalError
from edgedec.kernels.operator import DOMAIN

MEMORY, DECODE = (DOMAIN, "MemoryAttention"), (DOMAIN, "DecodeAttention")


def heads_of(node: ir.Node) -> Heads:
    """The heads of one of our attention nodes.

    Raises:
        RefusalError: its shapes do not say how wide they are.
    """
    kv, channels = attribute(node, "kv_num_heads"), axis(node.inputs[2], -1)
    if not isinstance(channels, int) or not kv or channels % kv:
        raise RefusalError(node, "the width of its heads is not known")
    return Heads(attribute(node, "q_num_heads"), kv, channels // kv)


@dataclass(eq=False)
class Bias:
    """A graph's bias input, with what nodes read of it.

    Attributes:
        writer: where it is read.
        value: ``[1, tables.heads, rows, columns]``.
        rows: tokens that ask, or 1 where all add the same.
        columns: keys.
        tables: which heads belong to which node.
    """

    writer: Writer
    value: ir.Value
    rows: int
    columns: int
    tables: Tables
    _parts: dict[tuple[tuple[int, int], Heads], ir.Value] = field(default_factory=dict)

    def of(self, node: ir.Node, heads: Heads) -> ir.Value:
        """What a node adds to the scores of its rows of queries; made once for equal nodes."""
        key = self.tables.place[node], heads
        if key not in self._parts:
            (first, last), part = key[0], self.value
            if last - first != self.tables.heads:
                part = self.writer.slice(part, {1: key[0]}, f"{node.name}.bias")
            shape = last - first, self.rows, self.columns
            self._parts[key] = bias_rows(self.writer, part, shape, heads, f"{node.name}.bias_rows")
        return self._parts[key]


@dataclass(eq=False)
class SelfAttention:
    """Writes MemoryAttention over the tokens themselves, in an encoder."""

    bias: Bias

    def __call__(self, emitter: Emitter, node: ir.Node) -> None:
        """Write a node."""
        w, count, heads = emitter.writer, emitter.count, heads_of(node)
        query, key, value = (emitter.read(v) for v in node.inputs[:3])
        name = str(node.name)
        mixed = attend(
            w,
            query,
            keys(w, key, heads, count, f"{name}.key"),
            values(w, value, heads, count, f"{name}.value"),
            self.bias.of(node, heads),
            heads,
            count,
            attribute(node, "scale"),
            name,
        )
        emitter.give(node.outputs[0], mixed)


@dataclass(eq=False)
class CrossAttention:
    """Writes MemoryAttention over what the encoder gave, which is laid out for it.

    Attributes:
        mask: what the graph adds to the scores, and
        bias: what takes its place.
    """

    mask: ir.Value
    bias: ir.Value

    def __call__(self, emitter: Emitter, node: ir.Node) -> None:
        """Write a node."""
        table = constant(node.inputs[4])
        if node.inputs[3] is not self.mask or table is None or table.any():
            raise RefusalError(node, "its bias is more than the mask of the source")
        query, key, value = (emitter.read(v) for v in node.inputs[:3])
        mixed = attend(
            emitter.writer,
            query,
            key,
            value,
            self.bias,
            heads_of(node),
            emitter.count,
            attribute(node, "scale"),
            str(node.name),
        )
        emitter.give(node.outputs[0], mixed)


@dataclass(eq=False)
class Cache:
    """Keys and values of a layer: those of earlier runs, then what each step of this one adds.

    Attributes:
        keys: ``[1, kv, width, ...]`` each.
        values: ``[1, kv, ..., width]`` each.
        rows: the keys and the values ``[1, count, kv * width]`` that the steps added.
    """

    keys: list[ir.Value]
    values: list[ir.Value]
    rows: tuple[list[ir.Value], list[ir.Value]] = field(default_factory=lambda: ([], []))


@dataclass(eq=False)
class CachedAttention:
    """Writes DecodeAttention: past keys and values, and behind them the new ones.

    Attributes:
        bias: over the past and the new tokens, of this step.
        caches: input of the graph that holds a layer's past keys -> the layer's cache.
    """

    bias: Bias
    caches: Mapping[ir.Value, Cache]

    def __call__(self, emitter: Emitter, node: ir.Node) -> None:
        """Write a node."""
        w, count, heads = emitter.writer, emitter.count, heads_of(node)
        query, key, value = (emitter.read(v) for v in node.inputs[:3])
        name, past = str(node.name), node.inputs[3]
        if past is None or past not in self.caches:
            raise RefusalError(node, "its cache is no input")
        cache = self.caches[past]
        # The rows leave the graph as the projections give them: a transposed value that is both
        # read and an output is one that QNN does not take.
        for rows, new in zip(cache.rows, (key, value), strict=True):
            rows.append(new)
        cache.keys.append(keys(w, key, heads, count, f"{name}.key"))
        cache.values.append(values(w, value, heads, count, f"{name}.value"))
        mixed = attend(
            w,
            query,
            w.op("Concat", cache.keys, f"{name}.keys", axis=3),
            w.op("Concat", cache.values, f"{name}.values", axis=2),
            self.bias.of(node, heads),
            heads,
            count,
            attribute(node, "scale"),
            name,
        )
        emitter.give(node.outputs[0], mixed)
