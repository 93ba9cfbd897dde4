"""DecodeAttention: append keys and values to the cache, then attend causally over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.body import build
from edgedec.kernels.memory_attention import ATTRIBUTES, attend
from edgedec.kernels.operator import Operator, Tensor

if TYPE_CHECKING:
    import onnx

OP = Operator(
    name="DecodeAttention",
    inputs=(
        Tensor("query", "float32", ("B", "T", "H*D")),
        Tensor("key", "float32", ("B", "T", "KV*D")),
        Tensor("value", "float32", ("B", "T", "KV*D")),
        Tensor("past_key", "float32", ("B", "M", "KV*D")),
        Tensor("past_value", "float32", ("B", "M", "KV*D")),
        Tensor("past_length", "int64", ("B",)),
        Tensor("bias", "float32", ("1 or H", "L"), constant=True),
    ),
    outputs=(
        Tensor("Y", "float32", ("B", "T", "H*D")),
        Tensor("present_key", "float32", ("B", "M", "KV*D")),
        Tensor("present_value", "float32", ("B", "M", "KV*D")),
    ),
    attributes=ATTRIBUTES,
)

Array = NDArray[np.float32]


def reference(
    query: Array,
    key: Array,
    value: Array,
    past_key: Array,
    past_value: Array,
    past_length: NDArray[np.int64],
    bias: Array,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    scale: float,
    origin: int,
) -> tuple[Array, Array, Array]:
    """What the operator computes, the attention in float64.

    Token t of row b is position ``p = past_length[b] + t``. It sees the cache's positions j <= p,
    with ``score = scale * q . k + bias[h or 0, clip(p - j + origin, 0, L - 1)]``; what the cache
    holds elsewhere is never read. Heads and tolerance are as in MemoryAttention.

    Returns:
        ``Y [B, T, H*D]`` and the caches with the new positions written; the inputs stay unchanged
        (kernels write in place where the runtime binds input and output to the same memory).

    Raises:
        ValueError: a length below 0, or new positions beyond the capacity M.
    """
    batch, new, _ = query.shape
    if (past_length < 0).any() or (past_length + new > past_key.shape[1]).any():
        raise ValueError(f"{new} positions after {past_length.tolist()} exceed {past_key.shape[1]}")
    y = np.empty_like(query)
    present_key, present_value = past_key.copy(), past_value.copy()
    for b in range(batch):
        start = int(past_length[b])
        present_key[b, start : start + new] = key[b]
        present_value[b, start : start + new] = value[b]
        for t in range(new):
            seen = start + t + 1
            distance = np.arange(seen - 1, -1, -1) + origin
            y[b, t] = attend(
                query[b, t : t + 1],
                present_key[b, :seen],
                present_value[b, :seen],
                bias[:, None, distance.clip(0, bias.shape[1] - 1)],
                q_num_heads,
                kv_num_heads,
                scale,
            )
    return y, present_key, present_value


BODY = """
    present_key = TensorScatter <axis=1> (past_key, key, past_length)
    present_value = TensorScatter <axis=1> (past_value, value, past_length)
    start = Constant <value_int=0> ()
    step = Constant <value_int=1> ()
    T = Shape <start=1, end=2> (query)
    queries = Squeeze (T)
    t = Range (start, queries, step)
    last_axis = Constant <value_ints=[1]> ()
    before = Unsqueeze (past_length, last_axis)
    position = Add (before, t)
    next_axis = Constant <value_ints=[2]> ()
    p = Unsqueeze (position, next_axis)
    M = Shape <start=1, end=2> (past_key)
    capacity = Squeeze (M)
    j = Range (start, capacity, step)
    distance = Sub (p, j)
    origin = Constant <value_int: int = @origin> ()
    entry = Add (distance, origin)
    L = Shape <start=1> (bias)
    length = Squeeze (L)
    largest = Sub (length, step)
    index = Clip (entry, start, largest)
    heads_bias = Gather <axis=1> (bias, index)
    batch_bias = Transpose <perm=[1, 0, 2, 3]> (heads_bias)
    past = GreaterOrEqual (distance, start)
    seen = Unsqueeze (past, last_axis)
    hidden = Constant <value_float=-3e38> ()
    added = Where (seen, batch_bias, hidden)
    Y = Attention <q_num_heads: int = @q_num_heads, kv_num_heads: int = @kv_num_heads,
                   scale: float = @scale> (query, present_key, present_value, added)
"""


def function() -> onnx.FunctionProto:
    """The operator in standard ones.

    It reads the whole capacity, so what the cache holds beyond the new positions must be finite.
    """
    return build(OP, BODY)
