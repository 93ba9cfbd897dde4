"""Whole layers, pre-norm or post-norm, from the attention and feed-forward blocks."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgedec.export.blocks.attention import (
    KeyValue,
    Layer,
    cached_attention,
    cached_keys_values,
    cross_attention,
    encoder_attention,
)
from edgedec.export.blocks.linear import feed_forward, low_rank, norm


def encoder_layer(layer: Layer, x: ir.Value) -> ir.Value:
    """Self-attention, then feed-forward; the scope is the layer."""
    x = _residual(layer, x, "self_attn", lambda y: encoder_attention(layer, y))
    return _mlp(layer, x)


def decoder_layer(
    layer: Layer,
    x: ir.Value,
    past: KeyValue,
    past_length: ir.Value,
    cross: tuple[KeyValue, ir.Value] | None,
) -> tuple[ir.Value, KeyValue]:
    """Cached self-attention, cross-attention where there is an encoder, feed-forward.

    ``cross`` holds the source's keys and values for this layer and the bias of their scores.
    Returns the hidden state and the updated cache.
    """
    present: list[KeyValue] = []

    def self_attention(y: ir.Value) -> ir.Value:
        mixed, cache = cached_attention(layer, y, past, past_length)
        present.append(cache)
        return mixed

    x = _residual(layer, x, "self_attn", self_attention)
    if cross is not None:
        memory, bias = cross
        x = _residual(layer, x, "cross_attn", lambda y: cross_attention(layer, y, bias, memory))
    return _mlp(layer, x), present[0]


def fill_layer(layer: Layer, x: ir.Value, past: KeyValue, past_length: ir.Value) -> KeyValue:
    """The cache that `decoder_layer` would leave; the layer computes nothing else."""
    b = layer.b
    with b.scope("self_attn"):
        y = norm(b, x, layer.stack, layer.width) if layer.stack.norm_first else x
        return cached_keys_values(layer, y, past, past_length)


def low_rank_layer(layer: Layer, x: ir.Value, anchor: ir.Value) -> ir.Value:
    """What the layer gave at its anchor ``[B, 1, width]``, with a low-rank correction by ``x``.

    ``y = anchor + B A x`` for the layer's input before its norm (LoRA-Drop, arXiv 2601.02569).
    """
    correction = low_rank(layer.b, x, "lora_adapter.A", "lora_adapter.B", layer.width, layer.width)
    return layer.b.op("Add", anchor, correction, name="lora_adapter.residual")


def _mlp(layer: Layer, x: ir.Value) -> ir.Value:
    return _residual(layer, x, "mlp", lambda y: feed_forward(layer.b, y, layer.stack, layer.width))


def _residual(
    layer: Layer, x: ir.Value, block: str, compute: Callable[[ir.Value], ir.Value]
) -> ir.Value:
    """Add what ``compute`` makes of ``x [B, T, width]``, with the norm before or after."""
    b, stack, width = layer.b, layer.stack, layer.width
    with b.scope(block):
        if stack.norm_first:
            return b.op("Add", x, compute(norm(b, x, stack, width)), name="residual")
        return norm(b, b.op("Add", x, compute(x), name="residual"), stack, width)
