"""Attention in float16, over caches that stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgedec.devices.gpu.lowering.bias import Bias
from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.model import HALF
from edgedec.devices.passes.match import attribute, axis
from edgedec.devices.passes.refusal import RefusalError
from edgedec.kernels.operator import DOMAIN

DECODE, MEMORY = (DOMAIN, "DecodeAttention"), (DOMAIN, "MemoryAttention")
SCATTER, PLAIN = ("", "TensorScatter"), ("", "Attention")

Heads = Mapping[str, int]
"""Name of a cache (``past.0.self.key``) -> its heads."""
Extra = Mapping[str, int]


@dataclass(frozen=True)
class _Cache:
    """A cache as a node has it: heads, positions, and channels of a head."""

    heads: int
    capacity: int
    width: int


def heads_of(graph: ir.Graph) -> dict[str, int]:
    """The heads of every cache that attention of a graph reads, by the name of the cache."""
    return {
        str(cache.name): int(attribute(node, "kv_num_heads"))
        for node in graph
        if (node.domain, node.op_type) == DECODE
        for cache in node.inputs[3:5]
        if cache is not None
    }


def lower_attention(editor: Editor, heads: Heads, capacity: int, extra: Extra) -> None:
    """Let all attention compute in float16, in place.

    Caches become float16 ``[B, heads, capacity, width]``: TensorRT updates these where they are.

    Args:
        editor: of the graph, whose attention is ours (`fuse_attention`).
        heads: of caches that nothing in this graph attends over, as `heads_of` gives them.
        capacity: positions that caches hold.
        extra: attributes for every standard Attention.

    Raises:
        RefusalError: attention or a cache of no form that is known.
    """
    graph = editor.graph
    for node in graph:
        if (node.domain, node.op_type) == PLAIN:
            raise RefusalError(node, "its attention has no form that is known")
    _shape_caches(graph, {**heads, **heads_of(graph)}, capacity)
    bias = Bias(editor)
    for node in list(graph):
        kind = node.domain, node.op_type
        if kind == DECODE:
            _decode(editor, bias, node, extra)
        elif kind == MEMORY:
            _memory(editor, bias, node, extra)
        elif kind == SCATTER:
            _write(editor, node)


def _shape_caches(graph: ir.Graph, heads: Heads, capacity: int) -> None:
    for value in graph.inputs:
        name = str(value.name)
        if name.startswith("past."):
            width, batch = axis(value, 2), axis(value, 0)
            if name not in heads or not isinstance(width, int):
                raise RefusalError(None, f"the heads of its cache {name!r} are not known")
            shape = (batch, heads[name], capacity, width // heads[name])
            value.shape, value.type = ir.Shape(shape), ir.TensorType(HALF)
        elif name.startswith("cross.") and name != "cross.mask":
            value.type = ir.TensorType(HALF)


def _cache(node: ir.Node, value: ir.Value | None) -> _Cache:
    if value is None or not value.is_graph_input() or value.dtype != HALF:
        raise RefusalError(node, "what it writes to is no cache")
    heads, capacity, width = (axis(value, i) for i in (1, 2, 3))
    assert isinstance(heads, int)
    assert isinstance(capacity, int)
    assert isinstance(width, int)
    return _Cache(heads, capacity, width)


def _decode(editor: Editor, bias: Bias, node: ir.Node, extra: Extra) -> None:
    query, name = node.inputs[0], str(node.name)
    assert query is not None
    places = []
    for i, part in ((1, "key"), (2, "value")):
        cache, new, old = node.inputs[i + 2], node.inputs[i], node.outputs[i]
        places.append(_scatter(editor, node, (cache, new, node.inputs[5]), old, f"{name}.{part}"))
    kind = _cache(node, node.inputs[3])
    heads = int(attribute(node, "q_num_heads"))
    split = _split(editor, node, query, heads, kind.width, f"{name}.query")
    mask = bias.causal(node, kind.capacity)
    scale = float(attribute(node, "scale"))
    inputs = [split, *places, mask]
    mixed = editor.op(node, "Attention", inputs, name, HALF, scale=scale, **extra)
    turned = editor.op(node, "Transpose", [mixed], f"{name}.turned", HALF, perm=[0, 2, 1, 3])
    shape = editor.shape(0, 0, heads * kind.width)
    joined = editor.op(node, "Reshape", [turned, shape], f"{name}.joined", HALF)
    editor.put(node, joined, node.outputs[0])
    editor.graph.remove(node, safe=True)


def _memory(editor: Editor, bias: Bias, node: ir.Node, extra: Extra) -> None:
    rows = [editor.cast(value, HALF) for value in node.inputs[:3] if value is not None]
    kept = {key: node.attributes[key].value for key in ("q_num_heads", "kv_num_heads", "scale")}
    inputs = [*rows, bias.masked(node)]
    made = editor.op(node, "Attention", inputs, f"{node.name}.half", HALF, **kept, **extra)
    editor.put(node, made, node.outputs[0])
    editor.graph.remove(node, safe=True)


def _write(editor: Editor, node: ir.Node) -> None:
    """New positions of a cache that nothing here reads."""
    if len(node.inputs) != 3 or attribute(node, "axis", -2) not in (1, -2):
        raise RefusalError(node, "it writes to no positions of a cache")
    cache, new, lengths = node.inputs
    _scatter(editor, node, (cache, new, lengths), node.outputs[0], str(node.name))
    editor.graph.remove(node, safe=True)


def _scatter(
    editor: Editor,
    node: ir.Node,
    inputs: tuple[ir.Value | None, ir.Value | None, ir.Value | None],
    old: ir.Value,
    name: str,
) -> ir.Value:
    """Write rows ``[B, T', heads * width]`` to a cache; the result takes ``old``'s place."""
    cache, new, lengths = inputs
    kind = _cache(node, cache)
    assert cache is not None
    assert new is not None
    rows = _split(editor, node, new, kind.heads, kind.width, name)
    made = editor.op(node, "TensorScatter", [cache, rows, lengths], f"{name}.cache", HALF, axis=2)
    made.shape = cache.shape
    editor.swap(old, made)
    return made


def _split(
    editor: Editor, node: ir.Node, rows: ir.Value, heads: int, width: int, name: str
) -> ir.Value:
    """``[B, T', heads * width]`` as float16 ``[B, heads, T', width]``."""
    shape = editor.shape(0, 0, heads, width)
    split = editor.op(node, "Reshape", [editor.cast(rows, HALF), shape], f"{name}.split", HALF)
    return editor.op(node, "Transpose", [split], f"{name}.heads", HALF, perm=[0, 2, 1, 3])
