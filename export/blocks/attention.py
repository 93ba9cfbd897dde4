"""Attention blocks: of the encoder, cached in the decoder, and across to the encoder."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.export.blocks.builder import Builder
from edgedec.export.blocks.linear import linear
from edgedec.export.blocks.positions import RotaryAngles
from edgedec.export.spec import Stack


def _queries(b: Builder, x: ir.Value, stack: Stack, width: int) -> ir.Value:
    return linear(b, x, "q", width, stack.q_width, bias=stack.qkv_bias)


def keys_values(b: Builder, x: ir.Value, stack: Stack, width: int) -> tuple[ir.Value, ir.Value]:
    """Keys and values ``[B, T, kv_heads * head_dim]`` of ``x [B, T, width]``."""
    key = linear(b, x, "k", width, stack.kv_width, bias=stack.qkv_bias)
    return key, linear(b, x, "v", width, stack.kv_width, bias=stack.qkv_bias)


def attend(
    b: Builder,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    bias: ir.Value,
    stack: Stack,
    width: int,
) -> ir.Value:
    """Scores, softmax, mix and output projection; 3-D inputs, so no node reshapes heads.

    ``bias`` is added to the scores ``[B, heads, T', M]`` (ONNX Attention-24).
    """
    mixed = b.op(
        "Attention",
        query,
        key,
        value,
        bias,
        q_num_heads=stack.heads,
        kv_num_heads=stack.kv_heads,
        scale=stack.attention_scale,
        name="attention",
    )
    return linear(b, mixed, "o", stack.q_width, width, bias=stack.out_bias)


def encoder_attention(
    b: Builder,
    x: ir.Value,
    stack: Stack,
    width: int,
    bias: ir.Value,
    rotary: RotaryAngles | None,
) -> ir.Value:
    """Self-attention over the whole source."""
    query = _queries(b, x, stack, width)
    key, value = keys_values(b, x, stack, width)
    if rotary is not None:
        query = rotary.rotate(b, query, stack.heads, "q.rotary")
        key = rotary.rotate(b, key, stack.kv_heads, "k.rotary")
    return attend(b, query, key, value, bias, stack, width)


def cached_attention(
    b: Builder,
    x: ir.Value,
    stack: Stack,
    width: int,
    bias: ir.Value,
    rotary: RotaryAngles | None,
    past: tuple[ir.Value, ir.Value],
    past_length: ir.Value,
) -> tuple[ir.Value, tuple[ir.Value, ir.Value]]:
    """Self-attention over the cache, which the new keys and values are written into.

    ``TensorScatter`` is functional; the runtime binds its input and output to the same buffer, and
    then ONNX Runtime writes in place.
    """
    query = _queries(b, x, stack, width)
    key, value = keys_values(b, x, stack, width)
    if rotary is not None:
        query = rotary.rotate(b, query, stack.heads, "q.rotary")
        key = rotary.rotate(b, key, stack.kv_heads, "k.rotary")
    keys = b.op("TensorScatter", past[0], key, past_length, axis=1, name="key_cache")
    values = b.op("TensorScatter", past[1], value, past_length, axis=1, name="value_cache")
    return attend(b, query, keys, values, bias, stack, width), (keys, values)


def cross_attention(
    b: Builder,
    x: ir.Value,
    stack: Stack,
    width: int,
    bias: ir.Value,
    cross: tuple[ir.Value, ir.Value],
) -> ir.Value:
    """Attention to the source; its keys and values come ready from the encoder graph."""
    return attend(b, _queries(b, x, stack, width), *cross, bias, stack, width)
