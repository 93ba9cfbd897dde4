"""MemoryAttention: attention over keys and values that are all given (encoder, cross-attention)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.body import build
from edgedec.kernels.operator import Attribute, Operator, Tensor

if TYPE_CHECKING:
    import onnx

ATTRIBUTES = (
    Attribute("q_num_heads", "int"),
    Attribute("kv_num_heads", "int"),
    Attribute("scale", "float"),
    Attribute("origin", "int"),
)

OP = Operator(
    name="MemoryAttention",
    inputs=(
        Tensor("query", "float32", ("B", "T", "H*D")),
        Tensor("key", "float32", ("B", "S", "KV*D")),
        Tensor("value", "float32", ("B", "S", "KV*D")),
        Tensor("mask", "float32", ("B", "1", "1", "S")),
        Tensor("bias", "float32", ("1 or H", "L"), constant=True),
    ),
    outputs=(Tensor("Y", "float32", ("B", "T", "H*D")),),
    attributes=ATTRIBUTES,
)

Array = NDArray[np.float32]


def reference(
    query: Array,
    key: Array,
    value: Array,
    mask: Array,
    bias: Array,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    scale: float,
    origin: int,
) -> Array:
    """What the operator computes, here in float64.

    ``score = scale * q . k + bias[h or 0, clip(t - j + origin, 0, L - 1)] + mask[b, 0, 0, j]``,
    softmax over the keys j; Y is the mean of the values under it. Query head h reads head
    ``h // (H / KV)`` of keys and values. Kernels work in float32 and may order sums as they like:
    for inputs of unit size they are within 1e-5 of this.

    Returns:
        float32 ``[B, T, H*D]``.
    """
    queries, keys = query.shape[1], key.shape[1]
    distance = np.arange(queries)[:, None] - np.arange(keys) + origin
    added = bias[:, distance.clip(0, bias.shape[1] - 1)]
    rows = [
        attend(query[b], key[b], value[b], added + mask[b, 0], q_num_heads, kv_num_heads, scale)
        for b in range(len(query))
    ]
    return np.stack(rows)


def attend(
    query: Array, key: Array, value: Array, added: Array, heads: int, kv_heads: int, scale: float
) -> Array:
    """One row of a batch: ``[T, H*D]`` over ``[S, KV*D]``, plus ``added [1 or H, T, S]``."""
    q = query.astype(np.float64).reshape(len(query), heads, -1)
    k, v = (x.astype(np.float64).reshape(len(x), kv_heads, -1) for x in (key, value))
    k, v = (x.repeat(heads // kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("thd,shd->hts", q, k) * scale + added
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: NDArray[np.float64] = np.einsum("hts,shd->thd", weights, v)
    return mixed.reshape(len(query), -1).astype(np.float32)


BODY = """
    start = Constant <value_int=0> ()
    step = Constant <value_int=1> ()
    T = Shape <start=1, end=2> (query)
    queries = Squeeze (T)
    t = Range (start, queries, step)
    last_axis = Constant <value_ints=[1]> ()
    p = Unsqueeze (t, last_axis)
    S = Shape <start=1, end=2> (key)
    keys = Squeeze (S)
    j = Range (start, keys, step)
    distance = Sub (p, j)
    origin = Constant <value_int: int = @origin> ()
    entry = Add (distance, origin)
    L = Shape <start=1> (bias)
    length = Squeeze (L)
    largest = Sub (length, step)
    index = Clip (entry, start, largest)
    heads_bias = Gather <axis=1> (bias, index)
    first_axis = Constant <value_ints=[0]> ()
    batch_bias = Unsqueeze (heads_bias, first_axis)
    added = Add (batch_bias, mask)
    Y = Attention <q_num_heads: int = @q_num_heads, kv_num_heads: int = @kv_num_heads,
                   scale: float = @scale> (query, key, value, added)
"""


def function() -> onnx.FunctionProto:
    """The operator in standard ones."""
    return build(OP, BODY)
