"""The model in NumPy, straight from the spec: what every graph is checked against.

Written for reading, not for speed, and without the tricks of the graphs: no cache, no folded
position tables, heads as an axis of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgedec.export.blocks.positions import MASKED, relative_bucket
from edgedec.export.spec import Learned, ModelSpec, RelativeBias, Rotary, Stack
from edgedec.export.weights import Weights

Array = NDArray[np.float32]
Ids = NDArray[np.int64]


def _erf(x: Array) -> Array:
    values: Array = np.vectorize(math.erf, otypes=[np.float64])(x).astype(np.float32)
    return values


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / np.float32(math.sqrt(2)))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + 0.044715 * x**3)))
    ),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


class Reference:
    """A model's forward pass. All arrays are float32; ``B`` rows, ``S`` source, ``T`` target.

    Args:
        spec: the model.
        weights: its tensors.
    """

    def __init__(self, spec: ModelSpec, weights: Weights) -> None:
        self.spec = spec
        self._weights = weights

    def logits(self, source: Ids | None, mask: Ids | None, target: Ids) -> Array:
        """Logits ``[B, T, vocab]`` of every position of ``target [B, T]``.

        ``source [B, S]`` and its ``mask`` (1 is a token) belong to encoder-decoders.
        """
        memory = padding = None
        if self.spec.encoder is not None:
            assert source is not None
            assert mask is not None
            padding = np.where(mask[:, None, None, :] != 0, 0.0, MASKED).astype(np.float32)
            memory = self.encode(source, padding)
        return self.decode(target, memory, padding)

    def encode(self, source: Ids, padding: Array) -> Array:
        """The encoder's hidden states ``[B, S, d_model]``."""
        stack = self.spec.encoder
        assert stack is not None
        x = self._embed("encoder", stack, source)
        for i in range(stack.layers):
            bias = padding + self._relative("encoder", i, stack, source.shape[1])
            x = self._residual(f"encoder.{i}.self_attn", stack, x, partial(self._attend, bias=bias))
            x = self._residual(f"encoder.{i}.mlp", stack, x, self._mlp)
        return self._norm("encoder.norm", stack, x) if stack.final_norm else x

    def decode(self, target: Ids, memory: Array | None, padding: Array | None) -> Array:
        """Logits of every target position, given the encoder's states."""
        spec, stack = self.spec, self.spec.decoder
        steps = target.shape[1]
        causal = np.triu(np.full((steps, steps), MASKED, np.float32), 1)
        x = self._embed("decoder", stack, target)
        for i in range(stack.layers):
            bias = causal + self._relative("decoder", i, stack, steps)
            x = self._residual(f"decoder.{i}.self_attn", stack, x, partial(self._attend, bias=bias))
            if memory is not None:
                cross = partial(self._attend, bias=padding, memory=memory)
                x = self._residual(f"decoder.{i}.cross_attn", stack, x, cross)
            x = self._residual(f"decoder.{i}.mlp", stack, x, self._mlp)
        if stack.final_norm:
            x = self._norm("decoder.norm", stack, x)
        x = x * np.float32(spec.logit_scale)
        if spec.d_embedding != spec.d_model:
            x = x @ self._read("decoder.embed_out.weight").T
        logits = x @ self._read("head.weight").T
        return logits + self._read("logit_bias") if spec.logit_bias else logits

    def _read(self, name: str) -> Array:
        return self._weights[name].read()

    def _linear(self, name: str, x: Array, bias: bool) -> Array:
        y = x @ self._read(f"{name}.weight").T
        return y + self._read(f"{name}.bias") if bias else y

    def _norm(self, name: str, stack: Stack, x: Array) -> Array:
        if stack.norm == "layer":
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(stack.norm_epsilon))
        x = x * self._read(f"{name}.weight")
        return x + self._read(f"{name}.bias") if stack.norm == "layer" else x

    def _residual(
        self, name: str, stack: Stack, x: Array, block: Callable[[str, Stack, Array], Array]
    ) -> Array:
        if stack.norm_first:
            return x + block(name, stack, self._norm(f"{name}.norm", stack, x))
        return self._norm(f"{name}.norm", stack, x + block(name, stack, x))

    def _mlp(self, name: str, stack: Stack, x: Array) -> Array:
        act = ACTIVATIONS[stack.activation]
        up = self._linear(f"{name}.up", x, stack.mlp_bias)
        gated = act(self._linear(f"{name}.gate", x, stack.mlp_bias)) * up if stack.gated else None
        inner = act(up) if gated is None else gated
        return self._linear(f"{name}.down", inner, stack.mlp_bias)

    def _attend(
        self, name: str, stack: Stack, x: Array, *, bias: Array | None, memory: Array | None = None
    ) -> Array:
        y = x if memory is None else memory

        def heads(part: str, value: Array, count: int) -> Array:
            flat = self._linear(f"{name}.{part}", value, stack.qkv_bias)
            split = flat.reshape(*flat.shape[:2], count, stack.head_dim).transpose(0, 2, 1, 3)
            if memory is None and part != "v" and isinstance(stack.positions, Rotary):
                return _rotate(split, stack.positions)
            return split

        group = stack.heads // stack.kv_heads
        q = heads("q", x, stack.heads)
        k = np.repeat(heads("k", y, stack.kv_heads), group, axis=1)
        v = np.repeat(heads("v", y, stack.kv_heads), group, axis=1)
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32(stack.attention_scale)
        scores = scores + bias if bias is not None else scores
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        flat = mixed.transpose(0, 2, 1, 3).reshape(*x.shape[:2], stack.q_width)
        return self._linear(f"{name}.o", flat, stack.out_bias)

    def _relative(self, side: str, layer: int, stack: Stack, size: int) -> Array:
        """T5's bias ``[1, H, size, size]``, or zero."""
        positions = stack.positions
        if not isinstance(positions, RelativeBias):
            return np.zeros(1, np.float32)
        owner = layer if positions.per_layer else 0
        table = self._read(f"{side}.{owner}.self_attn.relative_bias.weight")
        place = np.arange(size)
        bucket = relative_bucket(
            place[:, None] - place[None, :],
            positions.buckets,
            positions.max_distance,
            bidirectional=side == "encoder",
        )
        return table[bucket].transpose(2, 0, 1)[None]

    def _embed(self, side: str, stack: Stack, ids: Ids) -> Array:
        spec, positions = self.spec, stack.positions
        x = self._read(f"{side}.embed.weight")[ids] * np.float32(spec.embedding_scale)
        if spec.d_embedding != spec.d_model:
            x = x @ self._read(f"{side}.embed_in.weight").T
        if not isinstance(positions, RelativeBias | Rotary):
            offset = positions.offset if isinstance(positions, Learned) else 0
            x = x + self._read(f"{side}.positions.weight")[offset : offset + ids.shape[1]]
        return self._norm(f"{side}.embed_norm", stack, x) if stack.embedding_norm else x


def _rotate(x: Array, rotary: Rotary) -> Array:
    """Rotate pairs (c, c + d/2) of ``x [B, H, T, d]`` by position times frequency."""
    angle = np.arange(x.shape[2])[:, None] * np.array(rotary.inverse_frequencies)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
