"""Attention blocks: of the encoder, cached in the decoder, and across to the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgedec.export.blocks.builder import Builder
from edgedec.export.blocks.linear import linear
from edgedec.export.blocks.positions import RotaryAngles
from edgedec.export.spec import Stack

KeyValue = tuple[ir.Value, ir.Value]
"""Keys and values ``[B, T, kv_heads * head_dim]``."""


@dataclass(frozen=True)
class Layer:
    """What the blocks of one layer share.

    Attributes:
        b: the graph; its scope is the block that is being emitted.
        stack: the layer's stack.
        width: channels of the residual stream.
        bias: added to self-attention's scores ``[B, heads, T', M]``; None where nothing attends.
        rotary: angles that turn queries and keys, where the model has them.
    """

    b: Builder
    stack: Stack
    width: int
    bias: ir.Value | None
    rotary: RotaryAngles | None


def encoder_attention(layer: Layer, x: ir.Value) -> ir.Value:
    """Self-attention over the whole source ``x [B, S, width]``."""
    query, key, value = _rotated(layer, x)
    return _attend(layer.b, query, (key, value), layer.bias, layer.stack, layer.width)


def cached_attention(
    layer: Layer, x: ir.Value, past: KeyValue, past_length: ir.Value
) -> tuple[ir.Value, KeyValue]:
    """Self-attention over the cache, which the new keys and values are written into.

    ``TensorScatter`` is functional; the runtime binds its input and output to the same buffer, and
    then ONNX Runtime writes in place.
    """
    b = layer.b
    query, key, value = _rotated(layer, x)
    present = _written(b, (key, value), past, past_length)
    return _attend(b, query, present, layer.bias, layer.stack, layer.width), present


def cached_keys_values(
    layer: Layer, x: ir.Value, past: KeyValue, past_length: ir.Value
) -> KeyValue:
    """What `cached_attention` makes of the cache, without attending."""
    key, value = keys_values(layer.b, x, layer.stack, layer.width)
    return _written(layer.b, (_rotated_key(layer, key), value), past, past_length)


def cross_attention(layer: Layer, x: ir.Value, bias: ir.Value, memory: KeyValue) -> ir.Value:
    """Attention to the source; its keys and values come ready from the encoder graph."""
    b, stack, width = layer.b, layer.stack, layer.width
    query = linear(b, x, "q", width, stack.q_width, bias=stack.qkv_bias)
    return _attend(b, query, memory, bias, stack, width)


def keys_values(b: Builder, x: ir.Value, stack: Stack, width: int) -> KeyValue:
    """Keys and values of ``x [B, T, width]``, before any rotation."""
    key = linear(b, x, "k", width, stack.kv_width, bias=stack.qkv_bias)
    return key, linear(b, x, "v", width, stack.kv_width, bias=stack.qkv_bias)


def _rotated(layer: Layer, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Queries, keys and values of ``x``, the first two rotated where the model does that."""
    b, stack, width = layer.b, layer.stack, layer.width
    query = linear(b, x, "q", width, stack.q_width, bias=stack.qkv_bias)
    key, value = keys_values(b, x, stack, width)
    if layer.rotary is not None:
        query = layer.rotary.rotate(b, query, stack.heads, "q.rotary")
    return query, _rotated_key(layer, key), value


def _rotated_key(layer: Layer, key: ir.Value) -> ir.Value:
    if layer.rotary is None:
        return key
    return layer.rotary.rotate(layer.b, key, layer.stack.kv_heads, "k.rotary")


def _written(b: Builder, new: KeyValue, past: KeyValue, past_length: ir.Value) -> KeyValue:
    """The cache with new keys and values behind each row's ``past_length [B]`` positions."""
    return (
        b.op("TensorScatter", past[0], new[0], past_length, axis=1, name="key_cache"),
        b.op("TensorScatter", past[1], new[1], past_length, axis=1, name="value_cache"),
    )


def _attend(
    b: Builder, query: ir.Value, seen: KeyValue, bias: ir.Value | None, stack: Stack, width: int
) -> ir.Value:
    """Scores, softmax, mix and output projection; 3-D inputs, so no node reshapes heads.

    ``bias`` is added to the scores (ONNX Attention-24).
    """
    mixed = b.op(
        "Attention",
        query,
        *seen,
        bias,
        q_num_heads=stack.heads,
        kv_num_heads=stack.kv_heads,
        scale=stack.attention_scale,
        name="attention",
    )
    return linear(b, mixed, "o", stack.q_width, width, bias=stack.out_bias)
