"""Whole layers, pre-norm or post-norm, from the attention and feed-forward blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgedec.export.blocks.attention import cached_attention, cross_attention, encoder_attention
from edgedec.export.blocks.builder import Builder
from edgedec.export.blocks.linear import feed_forward, norm
from edgedec.export.blocks.positions import RotaryAngles
from edgedec.export.spec import Stack

KeyValue = tuple[ir.Value, ir.Value]


@dataclass(frozen=True)
class Residual:
    """A block on the residual stream: norm before it, or after the addition."""

    b: Builder
    stack: Stack
    width: int

    def __call__(
        self, x: ir.Value, block: str, compute: Callable[[ir.Value], ir.Value]
    ) -> ir.Value:
        """Add what ``compute`` makes of ``x [B, T, width]``; ``block`` names the scope."""
        with self.b.scope(block):
            if self.stack.norm_first:
                inner = compute(norm(self.b, x, self.stack, self.width))
                return self.b.op("Add", x, inner, name="residual")
            added = self.b.op("Add", x, compute(x), name="residual")
            return norm(self.b, added, self.stack, self.width)


def encoder_layer(
    b: Builder,
    x: ir.Value,
    stack: Stack,
    width: int,
    bias: ir.Value,
    rotary: RotaryAngles | None,
) -> ir.Value:
    """Self-attention, then feed-forward; the scope is the layer."""
    residual = Residual(b, stack, width)
    x = residual(x, "self_attn", lambda y: encoder_attention(b, y, stack, width, bias, rotary))
    return residual(x, "mlp", lambda y: feed_forward(b, y, stack, width))


def decoder_layer(
    b: Builder,
    x: ir.Value,
    stack: Stack,
    width: int,
    bias: ir.Value,
    rotary: RotaryAngles | None,
    past: KeyValue,
    past_length: ir.Value,
    cross: tuple[KeyValue, ir.Value] | None,
) -> tuple[ir.Value, KeyValue]:
    """Cached self-attention, cross-attention where there is an encoder, feed-forward.

    ``cross`` holds the layer's keys and values and their bias. Returns the hidden state and the
    updated cache.
    """
    residual = Residual(b, stack, width)
    present: list[KeyValue] = []

    def self_attention(y: ir.Value) -> ir.Value:
        mixed, cache = cached_attention(b, y, stack, width, bias, rotary, past, past_length)
        present.append(cache)
        return mixed

    x = residual(x, "self_attn", self_attention)
    if cross is not None:
        key_value, cross_bias = cross
        x = residual(
            x, "cross_attn", lambda y: cross_attention(b, y, stack, width, cross_bias, key_value)
        )
    x = residual(x, "mlp", lambda y: feed_forward(b, y, stack, width))
    return x, present[0]
