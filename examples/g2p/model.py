"""A lean T5 for training short sequences on a CPU.

The same function as Hugging Face's ``T5ForConditionalGeneration`` (relative position bias,
RMS norm before each sub-layer, gated GELU, tied and scaled head: Raffel et al. 2020, Shazeer
2020), with three differences that matter for speed and for the optimizer only:

* projections that read the same input are one stacked parameter (query, key, value; the two
  halves of the gated feed-forward layer), so that each is one matrix product;
* attention scores are divided by sqrt(d_kv), which T5 folds into the query weights:
  ``checkpoint.py`` folds it back;
* a dropout mask is shared by all positions of a sequence (Gal and Ghahramani 2016), which
  regularises whole features and costs one random number per sequence instead of per token.

Shapes: B words, S source letters, T target phonemes, D = d_model, H heads, K = d_kv.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

PAD, EOS, UNK = 0, 1, 2


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of the model; the names are those of a Hugging Face T5 config."""

    vocab_size: int
    d_model: int = 192
    d_ff: int = 512
    d_kv: int = 64
    num_heads: int = 3
    num_layers: int = 4
    num_decoder_layers: int = 4
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 64
    layer_norm_epsilon: float = 1e-6
    dropout_rate: float = 0.1


def sequence_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Drop features of x [B, L, D] with one mask [B, 1, D] per sequence."""
    if not training or rate == 0:
        return x
    keep = torch.rand(x.shape[0], 1, x.shape[2]) >= rate
    return x * (keep / (1 - rate))


def relative_buckets(length: int, config: ModelConfig, causal: bool) -> Tensor:
    """T5's bucket of each (query, key) distance: exact when near, logarithmic when far: [L, L]."""
    position = torch.arange(length)
    distance = position[:, None] - position[None, :]
    buckets = config.relative_attention_num_buckets
    if causal:
        offset = torch.zeros_like(distance)
        distance = distance.clamp(min=0)
    else:
        buckets //= 2
        offset = (distance < 0) * buckets
        distance = distance.abs()
    exact = buckets // 2
    span = math.log(config.relative_attention_max_distance / exact)
    far = exact + (torch.log(distance.clamp(min=1) / exact) / span * (buckets - exact)).long()
    return offset + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))


class RMSNorm(nn.Module):
    """x / rms(x) * weight, over the last dimension."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., D]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


def stack(count: int, rows: int, columns: int, std: float) -> nn.Parameter:
    """``count`` matrices that read the same input: [count, rows, columns]."""
    return nn.Parameter(torch.randn(count, rows, columns) * std)


class Attention(nn.Module):
    """Multi-head attention; ``projections`` holds query, key and value: [3, H*K, D]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.projections = stack(3, inner, config.d_model, config.d_model**-0.5)
        self.output = stack(1, config.d_model, inner, inner**-0.5)

    def forward(self, x: Tensor, memory: Tensor | None, bias: Tensor | None) -> Tensor:
        """Let x [B, T, D] attend to ``memory`` [B, S, D] (itself when None); bias [*, H, T, S]."""
        if memory is None:
            q, k, v = self._split(F.linear(x, self.projections.flatten(0, 1)), 3)
        else:
            (q,) = self._split(F.linear(x, self.projections[0]), 1)
            k, v = self._split(F.linear(memory, self.projections[1:].flatten(0, 1)), 2)
        scores = (q @ k.transpose(2, 3)) * (q.shape[3] ** -0.5)
        if bias is not None:
            scores = scores + bias
        mixed = scores.softmax(-1) @ v
        return F.linear(mixed.transpose(1, 2).flatten(2), self.output[0])

    def _split(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """[B, L, count*H*K] -> ``count`` tensors [B, H, L, K]."""
        shape = (*x.shape[:2], count, self.heads, -1)
        return x.reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)


class FeedForward(nn.Module):
    """Gated GELU: output(gelu(gate x) * (linear x)); ``inputs`` holds both: [2, F, D]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inputs = stack(2, config.d_ff, config.d_model, config.d_model**-0.5)
        self.output = stack(1, config.d_model, config.d_ff, config.d_ff**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, L, D] to the same shape."""
        gate, linear = F.linear(x, self.inputs.flatten(0, 1)).chunk(2, -1)
        return F.linear(F.gelu(gate, approximate="tanh") * linear, self.output[0])


class Layer(nn.Module):
    """Self-attention, cross-attention (decoder only) and feed-forward, each with a residual."""

    def __init__(self, config: ModelConfig, cross: bool) -> None:
        super().__init__()
        size, epsilon = config.d_model, config.layer_norm_epsilon
        self.rate = config.dropout_rate
        self.self_norm = RMSNorm(size, epsilon)
        self.self_attention = Attention(config)
        self.cross_norm = RMSNorm(size, epsilon) if cross else None
        self.cross_attention = Attention(config) if cross else None
        self.ff_norm = RMSNorm(size, epsilon)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, bias: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map x [B, T, D] to the same shape.

        Args:
            x: the residual stream.
            bias: what self-attention adds to its scores, [*, H, T, T].
            memory: the encoder's output [B, S, D], in the decoder.
            mask: what cross-attention adds to its scores, [B, 1, 1, S].
        """
        x = x + self._drop(self.self_attention(self.self_norm(x), None, bias))
        if self.cross_attention is not None and self.cross_norm is not None:
            x = x + self._drop(self.cross_attention(self.cross_norm(x), memory, mask))
        return x + self._drop(self.feed_forward(self.ff_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return sequence_dropout(x, self.rate, self.training)


class Stack(nn.Module):
    """The encoder or the decoder: layers that share one relative position bias."""

    def __init__(self, config: ModelConfig, decoder: bool) -> None:
        super().__init__()
        count = config.num_decoder_layers if decoder else config.num_layers
        self.config, self.causal = config, decoder
        self.layers: Sequence[Layer] = cast(
            "Sequence[Layer]", nn.ModuleList(Layer(config, cross=decoder) for _ in range(count))
        )
        self.position = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)
        nn.init.normal_(self.position.weight, std=config.d_model**-0.5)
        self.norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def position_bias(self, length: int) -> Tensor:
        """The bias of every (query, key) pair [1, H, L, L]; the decoder's hides the future."""
        buckets = relative_buckets(length, self.config, self.causal)
        bias: Tensor = self.position(buckets).permute(2, 0, 1)
        if self.causal:
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
            bias = bias.masked_fill(future, -1e9)
        return bias[None]


class G2PTransformer(nn.Module):
    """Encoder and decoder; every decoder layer is an exit through the shared norm and head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, decoder=False)
        self.decoder = Stack(config, decoder=True)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Letters [B, S] -> memory [B, S, D] and the padding's mask [B, 1, 1, S]."""
        mask = (source == PAD)[:, None, None, :] * -1e9
        x, bias = self._embed(source), self.encoder.position_bias(source.shape[1]) + mask
        for layer in self.encoder.layers:
            x = layer(x, bias)
        return self._drop(self.encoder.norm(x)), mask

    def decode(
        self, target: Tensor, memory: Tensor, mask: Tensor, depth: int | None = None
    ) -> list[Tensor]:
        """Previous phonemes [B, T] -> logits [B, T, V] of the exits up to ``depth`` (all)."""
        x, bias = self._embed(target), self.decoder.position_bias(target.shape[1])
        exits = []
        for layer in self.decoder.layers[:depth]:
            x = layer(x, bias, memory, mask)
            exits.append(self.head(x))
        return exits

    def head(self, x: Tensor) -> Tensor:
        """The shared exit: final norm, dropout, tied and scaled output embedding."""
        x = self._drop(self.decoder.norm(x))
        return F.linear(x * self.config.d_model**-0.5, self.embedding.weight)

    def forward(self, source: Tensor, target: Tensor) -> list[Tensor]:
        """Letters [B, S], previous phonemes [B, T] -> the logits of every exit, [B, T, V]."""
        memory, mask = self.encode(source)
        return self.decode(target, memory, mask)

    def _embed(self, ids: Tensor) -> Tensor:
        return self._drop(self.embedding(ids))

    def _drop(self, x: Tensor) -> Tensor:
        return sequence_dropout(x, self.config.dropout_rate, self.training)
