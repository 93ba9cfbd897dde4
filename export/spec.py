"""Plain facts about a model: what graphs, reference and manifest need, and nothing else."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeGuard

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
MOST_LAYERS = 1 << 12
LARGEST = 1 << 24
"""No width, number of rows or distance of any model is larger."""
LARGEST_NUMBER = 1e30
"""No factor of any model is larger; float32 reaches a little further."""


def check_sizes(most: int = LARGEST, **sizes: Any) -> None:
    """Refuse facts that are no sizes; raises ValueError with the first."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
            raise ValueError(f"{name} cannot be {str(size)[:40]!r}")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number that a model can be scaled by."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST_NUMBER  # which NaN is not


def check_numbers(**numbers: Any) -> None:
    """Refuse facts that are no finite numbers; raises ValueError with the first."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not math.isfinite(number):
            raise ValueError(f"{name} cannot be {str(number)[:40]!r}")


@dataclass(frozen=True)
class RelativeBias:
    """T5's bucketed relative position bias, added to the attention scores (arXiv 1910.10683, 2.1).

    ``per_layer`` says that every layer has its own table (UMT5) instead of sharing the first one's.
    """

    buckets: int
    max_distance: int
    per_layer: bool
    kind: Literal["relative_bias"] = "relative_bias"

    def __post_init__(self) -> None:
        check_sizes(buckets=self.buckets, max_distance=self.max_distance)
        if self.buckets < 4 or self.max_distance <= self.buckets // 2:
            raise ValueError(f"{self.buckets} buckets cannot reach {self.max_distance} positions")


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding of queries and keys in self-attention (arXiv 2104.09864), halves layout.

    ``inverse_frequencies`` has ``head_dim / 2`` values, in radians per position, already scaled
    for long contexts where the checkpoint asks for that.
    """

    inverse_frequencies: tuple[float, ...]
    kind: Literal["rotary"] = "rotary"

    def __post_init__(self) -> None:
        for frequency in self.inverse_frequencies:
            check_numbers(inverse_frequency=frequency)


@dataclass(frozen=True)
class Learned:
    """A table of position embeddings; position p reads row ``p + offset``."""

    offset: int
    kind: Literal["learned"] = "learned"


@dataclass(frozen=True)
class Sinusoidal:
    """Fixed position embeddings: sines in the first half of the channels, cosines in the second."""

    kind: Literal["sinusoidal"] = "sinusoidal"


Positions = RelativeBias | Rotary | Learned | Sinusoidal


@dataclass(frozen=True)
class Stack:
    """One stack of transformer layers: the encoder or the decoder."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    activation: Activation
    gated: bool
    norm: Literal["rms", "layer"]
    norm_epsilon: float
    norm_first: bool
    """Normalise before each block (pre-norm) instead of after its residual addition."""
    embedding_norm: bool
    final_norm: bool
    positions: Positions
    attention_scale: float
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool

    def __post_init__(self) -> None:
        check_sizes(MOST_LAYERS, layers=self.layers, heads=self.heads, kv_heads=self.kv_heads)
        check_sizes(head_dim=self.head_dim, d_ff=self.d_ff)
        check_numbers(norm_epsilon=self.norm_epsilon, attention_scale=self.attention_scale)
        if not 0 <= self.norm_epsilon < 1:
            raise ValueError(f"norm_epsilon cannot be {self.norm_epsilon}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} of keys and values")

    @property
    def q_width(self) -> int:
        """Channels of the queries: ``heads * head_dim``."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Channels of one position's keys (or values) in the cache: ``kv_heads * head_dim``."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a model except its weights. ``encoder is None`` means decoder-only.

    Like its parts, it raises ValueError for facts that no model has.
    """

    family: str
    vocab_size: int
    d_model: int
    d_embedding: int
    """Width of the token embedding; differs from ``d_model`` only where a projection follows."""
    embedding_scale: float
    encoder: Stack | None
    decoder: Stack
    logit_scale: float
    logit_bias: bool
    tied_head: bool
    max_source: int | None
    """Longest source in tokens, ``None`` without a limit."""
    max_target: int | None
    """Longest target in tokens (prompt included), ``None`` without a limit."""

    def __post_init__(self) -> None:
        check_sizes(vocab_size=self.vocab_size, d_model=self.d_model, d_embedding=self.d_embedding)
        check_numbers(embedding_scale=self.embedding_scale, logit_scale=self.logit_scale)
        for limit in (self.max_source, self.max_target):
            if limit is not None:
                check_sizes(1 << 30, length=limit)

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON types, for the manifest."""
        return asdict(self)
