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
Block = Callable[[str, Stack, Array], Array]
"""``(module path, stack, input) -> output``: what a residual is added around."""


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


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)


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
            memory, padding = self.remember(source, mask)
        return self.decode(target, memory, padding)

    def remember(self, source: Ids, mask: Ids) -> tuple[Array, Array]:
        """The hidden states of ``source [B, S]``, and the bias that hides its padding."""
        padding = np.where(mask[:, None, None, :] != 0, 0.0, MASKED).astype(np.float32)
        return self.encode(source, padding), padding

    def encode(self, source: Ids, padding: Array) -> Array:
        """The encoder's hidden states ``[B, S, d_model]``; ``padding`` is added to its scores."""
        stack = self.spec.encoder
        assert stack is not None
        place = np.arange(source.shape[1])
        x = self.embed("encoder", stack, source, place)
        for i in range(stack.layers):
            bias = padding + self.relative("encoder", i, stack, place, place)
            attend = partial(self._self_attend, bias=bias, place=place)
            x = self._residual(f"encoder.{i}.self_attn", stack, x, attend)
            x = self._residual(f"encoder.{i}.mlp", stack, x, self._mlp)
        return self.norm("encoder.norm", stack, x) if stack.final_norm else x

    def decode(self, target: Ids, memory: Array | None, padding: Array | None) -> Array:
        """Logits of every target position, given the encoder's states."""
        stack = self.spec.decoder
        place = np.arange(target.shape[1])
        causal = np.triu(np.full((place.size, place.size), MASKED, np.float32), 1)
        x = self.embed("decoder", stack, target, place)
        for i in range(stack.layers):
            bias = causal + self.relative("decoder", i, stack, place, place)
            attend = partial(self._self_attend, bias=bias, place=place)
            x = self.layer(i, x, attend, memory, padding)
        return self.head(x)

    def layer(
        self, i: int, x: Array, self_attend: Block, memory: Array | None, padding: Array | None
    ) -> Array:
        """The output ``[B, T, d_model]`` of decoder layer ``i``.

        Args:
            i: the layer.
            x: its input ``[B, T, d_model]``.
            self_attend: makes self-attention's output of its (normed) input.
            memory: the encoder's states ``[B, S, d_model]``, None without an encoder.
            padding: added to the scores of cross-attention.
        """
        stack = self.spec.decoder
        x = self._residual(f"decoder.{i}.self_attn", stack, x, self_attend)
        if memory is not None:
            cross = partial(self._cross_attend, bias=padding, memory=memory)
            x = self._residual(f"decoder.{i}.cross_attn", stack, x, cross)
        return self._residual(f"decoder.{i}.mlp", stack, x, self._mlp)

    def head(self, x: Array) -> Array:
        """Logits ``[B, T, vocab]`` of any layer's output."""
        spec = self.spec
        if spec.decoder.final_norm:
            x = self.norm("decoder.norm", spec.decoder, x)
        x = x * np.float32(spec.logit_scale)
        if spec.d_embedding != spec.d_model:
            x = x @ self.read("decoder.embed_out.weight").T
        logits = x @ self.read("head.weight").T
        return logits + self.read("logit_bias") if spec.logit_bias else logits

    def confidence(self, x: Array) -> Array:
        """What the classifier says of any layer's output, ``[B, T]`` from 0 to 1."""
        if "meta.weight" in self._weights:
            return _sigmoid((x @ self.read("meta.weight").T)[..., 0] + self.read("meta.bias"))
        inner = np.maximum(x @ self.read("meta.0.weight").T, 0)
        other, confident = np.moveaxis(inner @ self.read("meta.2.weight").T, -1, 0)
        return _sigmoid(confident - other)

    def router(self, layer: int, x: Array) -> Array:
        """What a layer's router says of its input, or of the source's mean, ``[B, T]``."""
        score = (x @ self.read(f"router.{layer}.weight").T)[..., 0]
        if f"router.{layer}.bias" in self._weights:
            score = score + self.read(f"router.{layer}.bias")
        return _sigmoid(score)

    def read(self, name: str) -> Array:
        """A tensor's values."""
        return self._weights[name].read()

    def low_rank(self, x: Array, down: str, up: str) -> Array:
        """``up(down(x))``, of two matrices without biases."""
        inner: Array = x @ self.read(f"{down}.weight").T
        return inner @ self.read(f"{up}.weight").T

    def _linear(self, name: str, x: Array, bias: bool) -> Array:
        y = x @ self.read(f"{name}.weight").T
        if f"{name}.lora_A.weight" in self._weights:
            y = y + self.low_rank(x, f"{name}.lora_A", f"{name}.lora_B")
        return y + self.read(f"{name}.bias") if bias else y

    def norm(self, name: str, stack: Stack, x: Array) -> Array:
        """``x`` normalised over its last axis."""
        if stack.norm == "layer":
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(stack.norm_epsilon))
        x = x * self.read(f"{name}.weight")
        return x + self.read(f"{name}.bias") if stack.norm == "layer" else x

    def _residual(self, name: str, stack: Stack, x: Array, block: Block) -> Array:
        if stack.norm_first:
            return x + block(name, stack, self.norm(f"{name}.norm", stack, x))
        return self.norm(f"{name}.norm", stack, x + block(name, stack, x))

    def _mlp(self, name: str, stack: Stack, x: Array) -> Array:
        act = ACTIVATIONS[stack.activation]
        up = self._linear(f"{name}.up", x, stack.mlp_bias)
        gated = act(self._linear(f"{name}.gate", x, stack.mlp_bias)) * up if stack.gated else None
        inner = act(up) if gated is None else gated
        return self._linear(f"{name}.down", inner, stack.mlp_bias)

    def _self_attend(self, name: str, stack: Stack, x: Array, *, bias: Array, place: Ids) -> Array:
        return self.attend(name, stack, x, *self.keys_values(name, stack, x, place), bias, place)

    def _cross_attend(
        self, name: str, stack: Stack, x: Array, *, bias: Array | None, memory: Array
    ) -> Array:
        return self.attend(name, stack, x, *self.keys_values(name, stack, memory), bias)

    def keys_values(
        self, name: str, stack: Stack, x: Array, place: Ids | None = None
    ) -> tuple[Array, Array]:
        """Keys and values ``[B, T, kv_heads * head_dim]`` of ``x``, as a cache holds them.

        ``place [T]`` are the positions that keys are rotated to, where the model does that.
        """
        key = self._linear(f"{name}.k", x, stack.qkv_bias)
        value = self._linear(f"{name}.v", x, stack.qkv_bias)
        return _rotate(key, stack, place), value

    def attend(
        self,
        name: str,
        stack: Stack,
        x: Array,
        key: Array,
        value: Array,
        bias: Array | None,
        place: Ids | None = None,
    ) -> Array:
        """Attention of ``x [B, T, d_model]`` at ``place [T]`` to keys and values."""
        query = _rotate(self._linear(f"{name}.q", x, stack.qkv_bias), stack, place)
        group = stack.heads // stack.kv_heads
        q = _split(query, stack.head_dim)
        k = np.repeat(_split(key, stack.head_dim), group, axis=1)
        v = np.repeat(_split(value, stack.head_dim), group, axis=1)
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32(stack.attention_scale)
        scores = scores + bias if bias is not None else scores
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        flat = mixed.transpose(0, 2, 1, 3).reshape(*x.shape[:2], stack.q_width)
        return self._linear(f"{name}.o", flat, stack.out_bias)

    def relative(self, side: str, layer: int, stack: Stack, queries: Ids, keys: Ids) -> Array:
        """T5's bias ``[1, H, queries, keys]`` of these positions, or zero."""
        positions = stack.positions
        if not isinstance(positions, RelativeBias):
            return np.zeros(1, np.float32)
        owner = layer if positions.per_layer else 0
        table = self.read(f"{side}.{owner}.self_attn.relative_bias.weight")
        bucket = relative_bucket(
            queries[:, None] - keys[None, :],
            positions.buckets,
            positions.max_distance,
            bidirectional=side == "encoder",
        )
        return table[bucket].transpose(2, 0, 1)[None]

    def embed(self, side: str, stack: Stack, ids: Ids, place: Ids) -> Array:
        """Embeddings ``[B, T, d_model]`` of ``ids [B, T]`` at the positions ``place [T]``."""
        spec, positions = self.spec, stack.positions
        x = self.read(f"{side}.embed.weight")[ids] * np.float32(spec.embedding_scale)
        if spec.d_embedding != spec.d_model:
            x = x @ self.read(f"{side}.embed_in.weight").T
        if not isinstance(positions, RelativeBias | Rotary):
            offset = positions.offset if isinstance(positions, Learned) else 0
            x = x + self.read(f"{side}.positions.weight")[offset + place]
        return self.norm(f"{side}.embed_norm", stack, x) if stack.embedding_norm else x


def _split(x: Array, width: int) -> Array:
    """``[B, T, H * width]`` as ``[B, H, T, width]``."""
    return x.reshape(*x.shape[:2], -1, width).transpose(0, 2, 1, 3)


def _rotate(x: Array, stack: Stack, place: Ids | None) -> Array:
    """Rotate pairs (c, c + d/2) of heads ``x [B, T, H * d]`` by position times frequency."""
    if place is None or not isinstance(stack.positions, Rotary):
        return x
    angle = place[:, None] * np.array(stack.positions.inverse_frequencies)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    a, b = np.split(_split(x, stack.head_dim), 2, axis=-1)
    turned = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned.transpose(0, 2, 1, 3).reshape(x.shape)
