"""Arithmetic that a request needs, counted from a spec (docs/architecture-study.md).

A multiplication and an addition are 2 operations. Products and attention count; norms,
activations and softmax, about 1 % more, do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.export.spec import ModelSpec, Stack


@dataclass(frozen=True)
class Flops:
    """Floating-point operations.

    Attributes:
        matrices: of products with weights.
        attention: of scores and of mixing values, where a mask lets a query see a key.
    """

    matrices: int
    attention: int

    @property
    def total(self) -> int:
        """Of both."""
        return self.matrices + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.matrices + other.matrices, self.attention + other.attention)


def request(spec: ModelSpec, source: int, new: int) -> Flops:
    """A whole request: ``source`` tokens are read, ``new`` are generated."""
    total = first_token(spec, source)
    for index in range(1, new):
        total += next_token(spec, source, index)
    return total


def first_token(spec: ModelSpec, source: int) -> Flops:
    """To the first token: of an encoder-decoder, encoder and one step; else the whole prompt."""
    if spec.encoder is None:
        return _decode(spec, new=source, past=0, source=0)
    return _encode(spec, spec.encoder, source) + _decode(spec, new=1, past=0, source=source)


def next_token(spec: ModelSpec, source: int, index: int) -> Flops:
    """Token number ``index`` of the output, counted from 0; of the first one, its step alone."""
    if spec.encoder is None:
        return _decode(spec, new=1, past=source + index - 1, source=0)
    return _decode(spec, new=1, past=index, source=source)


def _encode(spec: ModelSpec, stack: Stack, source: int) -> Flops:
    """The encoder, and keys and values of its output for every decoder layer."""
    crossed = 2 * spec.d_model * spec.decoder.kv_width * spec.decoder.layers
    return Flops(
        2 * source * (_attention(spec, stack) + _mlp(spec, stack)) * stack.layers
        + 2 * source * crossed,
        4 * stack.q_width * source * source * stack.layers,
    )


def _decode(spec: ModelSpec, *, new: int, past: int, source: int) -> Flops:
    """A pass of the decoder over ``new`` tokens behind ``past``, of which the last is scored."""
    stack = spec.decoder
    weights = _attention(spec, stack) + _mlp(spec, stack)
    seen = new * past + new * (new + 1) // 2
    if spec.encoder is not None:
        weights += 2 * spec.d_model * stack.q_width  # queries and output of cross-attention
        seen += new * source
    head = spec.d_model * spec.vocab_size
    return Flops(
        2 * new * weights * stack.layers + 2 * head, 4 * stack.q_width * seen * stack.layers
    )


def _attention(spec: ModelSpec, stack: Stack) -> int:
    """Weights of self-attention's four matrices in a layer."""
    return spec.d_model * (2 * stack.q_width + 2 * stack.kv_width)


def _mlp(spec: ModelSpec, stack: Stack) -> int:
    """Weights of a feed-forward block's two matrices."""
    return 2 * spec.d_model * stack.d_ff
