"""The two models of the study, from one description of their blocks.

The encoder-decoder is Mu's (arXiv 2501.16273); the decoder-only model has its decoder's blocks
without cross-attention, in as many layers as give it the same number of parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from edgedec.export.families import mu
from edgedec.export.spec import ModelSpec, Stack

Architecture = Literal["encoder-decoder", "decoder-only"]
ARCHITECTURES: tuple[Architecture, Architecture] = ("encoder-decoder", "decoder-only")
CLOSE = 0.01
"""By which fraction the numbers of parameters of both models may differ."""


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder-decoder; both stacks have the same blocks, and the head is tied.

    Attributes:
        name: what ``--shape`` calls it.
        encoder_layers, decoder_layers: of the encoder-decoder.
        d_model: channels of the residual stream.
        d_ff: hidden units of a feed-forward block.
        heads, kv_heads, head_dim: of every attention.
        vocab_size: rows of the embedding.
    """

    name: str
    encoder_layers: int
    decoder_layers: int
    d_model: int
    d_ff: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 8, 4, 64, 256, 2, 1, 32, 512),  # for tests
        Shape("small", 12, 6, 512, 2048, 4, 2, 64, 32128),
        Shape("paper", 20, 10, 1024, 4096, 6, 3, 64, 32128),
    )
}


def spec_of(shape: Shape, architecture: Architecture) -> ModelSpec:
    """The model of a shape; raises ValueError as `decoder_only`."""
    return encoder_decoder(shape) if architecture == "encoder-decoder" else decoder_only(shape)


def encoder_decoder(shape: Shape) -> ModelSpec:
    """Mu in this shape, without its limit of 1,024 positions, which rotary positions do not need.

    With it, the decoder-only model could not continue a prompt of 1,024 tokens.
    """
    config = {
        "n_encoder_layer": shape.encoder_layers,
        "n_decoder_layer": shape.decoder_layers,
        "n_embd": shape.d_model,
        "qkv_embd": shape.heads * shape.head_dim,
        "hidden_dim": shape.d_ff,
        "n_head": shape.heads,
        "n_kv_head": shape.kv_heads,
        "vocab_size": shape.vocab_size,
    }
    return replace(mu.spec(config, {}), max_source=None, max_target=None)


def decoder_only(shape: Shape) -> ModelSpec:
    """The decoder alone, in the number of layers that comes closest to the same parameters.

    Raises:
        ValueError: no number of layers comes within `CLOSE`.
    """
    whole = encoder_decoder(shape)

    def layers(count: int) -> ModelSpec:
        return replace(whole, encoder=None, decoder=replace(whole.decoder, layers=count))

    wanted, one = parameters(whole), parameters(layers(1))
    found = layers(1 + round((wanted - one) / (parameters(layers(2)) - one)))
    if abs(parameters(found) / wanted - 1) > CLOSE:
        raise ValueError(f"no decoder-only model has within {CLOSE:.0%} as many parameters")
    return found


def parameters(spec: ModelSpec) -> int:
    """How many weights a model has; the embedding, which is the head too, counts once."""
    return sum(map(prod, tensors(spec).values()))


def tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model and its shape, under the names of the graphs."""
    found: dict[str, tuple[int, ...]] = {"decoder.embed.weight": (spec.vocab_size, spec.d_model)}
    for side, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        if stack is None:
            continue
        found[f"{side}.norm.weight"] = (spec.d_model,)
        crosses = side == "decoder" and spec.encoder is not None
        for layer in range(stack.layers):
            for name, shape in _layer(stack, spec.d_model, crosses=crosses):
                found[f"{side}.{layer}.{name}"] = shape
    return found


def _layer(stack: Stack, width: int, *, crosses: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a layer: pre-norm, every product with a bias, no gate."""
    attention = {
        "q": (stack.q_width, width),
        "k": (stack.kv_width, width),
        "v": (stack.kv_width, width),
        "o": (width, stack.q_width),
    }
    blocks = {"self_attn": attention}
    if crosses:
        blocks["cross_attn"] = attention
    blocks["mlp"] = {"up": (stack.d_ff, width), "down": (width, stack.d_ff)}
    for block, linears in blocks.items():
        yield f"{block}.norm.weight", (width,)
        for name, shape in linears.items():
            yield f"{block}.{name}.weight", shape
            yield f"{block}.{name}.bias", shape[:1]
