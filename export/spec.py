"""Plain facts about a model: what graphs, reference and manifest need, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


@dataclass(frozen=True)
class RelativeBias:
    """T5's bucketed relative position bias, added to the attention scores (arXiv 1910.10683, 2.1).

    ``per_layer`` says that every layer has its own table (UMT5) instead of sharing the first one's.
    """

    buckets: int
    max_distance: int
    per_layer: bool
    kind: Literal["relative_bias"] = "relative_bias"


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding of queries and keys in self-attention (arXiv 2104.09864), halves layout.

    ``inverse_frequencies`` has ``head_dim / 2`` values, in radians per position, already scaled
    for long contexts where the checkpoint asks for that.
    """

    inverse_frequencies: tuple[float, ...]
    kind: Literal["rotary"] = "rotary"


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
    """Everything about a model except its weights. ``encoder is None`` means decoder-only."""

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

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON types, for the manifest."""
        return asdict(self)
