"""Standard attention to our two operators, where the bias is a table over distances.

The exporter computes every bias from such a table (`edgedec.export.blocks.positions`), for queries
and keys that the runtime counts. Our operators read the table itself and no position that cannot be
seen. A bias that was made in any other way stays, with its standard Attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgedec.devices.passes.change import add_initializer, take_over
from edgedec.devices.passes.match import (
    attribute,
    integer,
    is_constant,
    may_agree,
    producer,
    table,
)
from edgedec.kernels.operator import DOMAIN

UNSEEN = -1e8
"""What a table adds to scores that must not count is below this."""
UNDERSTOOD = {"q_num_heads", "kv_num_heads", "scale"}


@dataclass(frozen=True, eq=False)
class _Bias:
    """``table[h or 0, clip(distance + origin, 0, length - 1)]``."""

    table: ir.Value
    origin: int


def fuse_attention(graph: ir.Graph) -> None:
    """Replace every Attention of a graph that one of our operators computes, in place.

    What only the replaced nodes used is left for whoever removes dead nodes.
    """
    none: ir.Value | None = None
    for node in list(graph):
        if not _is_plain(node):
            continue
        if (found := _cached(node)) is not None:
            _decode_attention(graph, node, *found)
        elif (remembered := _remembered(node)) is not None:
            mask, bias = remembered
            if bias is None:
                none = none or add_initializer(graph, "no_bias", np.zeros((1, 1), np.float32))
                bias = _Bias(none, 0)
            _memory_attention(graph, node, mask, bias)


def _is_plain(node: ir.Node) -> bool:
    """Whether a node is the 3-D Attention that the exporter emits, without any extra."""
    return (
        (node.domain, node.op_type) == ("", "Attention")
        and set(node.attributes) == UNDERSTOOD
        and len(node.inputs) == 4
        and len(node.outputs) == 1
        and all(_is_flat(value) for value in node.inputs[:3])
    )


def _is_flat(value: ir.Value | None) -> bool:
    """Whether a value is float32 ``[B, T, heads * width]``."""
    return (
        value is not None
        and value.dtype == ir.DataType.FLOAT
        and value.shape is not None
        and len(value.shape) == 3
    )


def _cached(node: ir.Node) -> tuple[ir.Node, ir.Node, _Bias] | None:
    """The nodes that write keys and values to the caches, and the bias over the caches."""
    writes = [producer(value, "TensorScatter") for value in node.inputs[1:3]]
    key, value = writes
    if key is None or value is None:
        return None
    lengths = key.inputs[2] if len(key.inputs) == 3 else None
    if (
        lengths is None
        or len(value.inputs) != 3
        or value.inputs[2] is not lengths
        or any(not _appends(write) for write in (key, value))
    ):
        return None
    bias = _causal(node.inputs[3], lengths, node.inputs[0], key.inputs[0])
    return None if bias is None else (key, value, bias)


def _appends(write: ir.Node) -> bool:
    """Whether a TensorScatter writes rows of positions, for this one Attention alone."""
    return (
        attribute(write, "axis", -2) in {1, -2}
        and attribute(write, "mode", "linear") == "linear"
        and len(write.outputs[0].uses()) == 1
    )


def _causal(
    value: ir.Value | None, lengths: ir.Value, query: ir.Value | None, cache: ir.Value | None
) -> _Bias | None:
    """The table of ``table[h, clip(lengths[b] + t - j + 1)]`` as ``[B, h, t, j]``.

    ``t`` counts the new tokens and ``j`` the positions of the cache. The table's first column must
    hide: our operator never looks at what comes after the query.
    """
    turned = producer(value, "Transpose")
    gather = producer(turned.inputs[0], "Gather") if turned is not None else None
    if turned is None or gather is None or list(attribute(turned, "perm", ())) != [1, 0, 2, 3]:
        return None
    values = table(gather.inputs[0])
    clip = producer(gather.inputs[1], "Clip")
    if values is None or clip is None or attribute(gather, "axis", 0) != 1:
        return None
    if not _clips(clip, 0, values.shape[1] - 1) or (values[:, 0] > UNSEEN).any():
        return None
    index = producer(clip.inputs[0], "Add")
    distance = producer(index.inputs[0], "Sub") if index is not None else None
    if index is None or distance is None or integer(index.inputs[1]) != 1:
        return None
    place = _unsqueezed(distance.inputs[0], 2)
    total = producer(place, "Add")
    if total is None or _unsqueezed(total.inputs[0], 1) is not lengths:
        return None
    if not (_counts(total.inputs[1], query) and _counts(distance.inputs[1], cache)):
        return None
    assert gather.inputs[0] is not None
    return _Bias(gather.inputs[0], 1)


def _remembered(node: ir.Node) -> tuple[ir.Value, _Bias | None] | None:
    """The mask ``[B, 1, 1, S]`` that hides keys, and the bias over distances if there is one."""
    query, key = node.inputs[:2]
    spread = producer(node.inputs[3], "Expand")
    if spread is not None:
        mask = spread.inputs[0]
        return (mask, None) if mask is not None and _hides(mask, query, key) else None
    total = producer(node.inputs[3], "Add")
    if total is None:
        return None
    bias, mask = total.inputs
    found = _relative(_unsqueezed(bias, 0), query, key)
    if mask is None or found is None or not _hides(mask, query, key):
        return None
    return mask, found


def _hides(mask: ir.Value, query: ir.Value | None, key: ir.Value | None) -> bool:
    """Whether a mask is ``[B, 1, 1, S]``."""
    return (
        mask.shape is not None
        and len(mask.shape) == 4
        and mask.shape[1] == mask.shape[2] == 1
        and may_agree(mask, 0, query, 0)
        and may_agree(mask, 3, key, 1)
    )


def _relative(value: ir.Value | None, query: ir.Value | None, key: ir.Value | None) -> _Bias | None:
    """The table of ``table[h, clip(t - j, -R, R) + R]`` as ``[h, t, j]``."""
    gather = producer(value, "Gather")
    if gather is None or attribute(gather, "axis", 0) != 1:
        return None
    values = table(gather.inputs[0])
    index = producer(gather.inputs[1], "Add")
    clip = producer(index.inputs[0], "Clip") if index is not None else None
    distance = producer(clip.inputs[0], "Sub") if clip is not None else None
    if values is None or index is None or clip is None or distance is None:
        return None
    reach = values.shape[1] // 2
    if values.shape[1] != 2 * reach + 1 or integer(index.inputs[1]) != reach:
        return None
    places = _unsqueezed(distance.inputs[0], 1), _unsqueezed(distance.inputs[1], 0)
    if not (_clips(clip, -reach, reach) and _counts(places[0], query) and _counts(places[1], key)):
        return None
    assert gather.inputs[0] is not None
    return _Bias(gather.inputs[0], reach)


def _clips(clip: ir.Node, lowest: int, highest: int) -> bool:
    return (
        len(clip.inputs) == 3
        and integer(clip.inputs[1]) == lowest
        and integer(clip.inputs[2]) == highest
    )


def _unsqueezed(value: ir.Value | None, at: int) -> ir.Value | None:
    """What a value was before it got an axis of length 1 there."""
    node = producer(value, "Unsqueeze")
    return node.inputs[0] if node is not None and is_constant(node.inputs[1], at) else None


def _counts(value: ir.Value | None, like: ir.Value | None) -> bool:
    """Whether a value is 0, 1, ... up to the length of axis 1 of another one."""
    node = producer(value, "Range")
    if node is None or integer(node.inputs[0]) != 0 or integer(node.inputs[2]) != 1:
        return False
    squeeze = producer(node.inputs[1], "Squeeze")
    shape = producer(squeeze.inputs[0], "Shape") if squeeze is not None else None
    return (
        shape is not None
        and (attribute(shape, "start", 0), attribute(shape, "end")) == (1, 2)
        and may_agree(shape.inputs[0], 1, like, 1)
    )


def _memory_attention(graph: ir.Graph, node: ir.Node, mask: ir.Value, bias: _Bias) -> None:
    inputs = [*node.inputs[:3], mask, bias.table]
    made = _node(node, "MemoryAttention", inputs, 1, bias.origin)
    take_over(graph, made, [node], node)


def _decode_attention(
    graph: ir.Graph, node: ir.Node, key: ir.Node, value: ir.Node, bias: _Bias
) -> None:
    inputs = [
        node.inputs[0],
        key.inputs[1],
        value.inputs[1],
        key.inputs[0],
        value.inputs[0],
        key.inputs[2],
        bias.table,
    ]
    made = _node(node, "DecodeAttention", inputs, 3, bias.origin)
    take_over(graph, made, [node, key, value], node)


def _node(
    node: ir.Node, op_type: str, inputs: list[ir.Value | None], outputs: int, origin: int
) -> ir.Node:
    kept = {name: item for name, item in node.attributes.items() if name in UNDERSTOOD}
    attributes = [*kept.values(), ir.AttrInt64("origin", origin)]
    return ir.Node(DOMAIN, op_type, inputs, attributes, num_outputs=outputs, name=node.name)
