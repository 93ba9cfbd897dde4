"""Positions: embeddings added to tokens, rotary angles, and the bias on attention scores.

Masks and relative biases are one mechanism. The score of query position p and key position j gets
``table[head, index(p - j)]``; the table's entry for distances that must not be seen is `MASKED`.
T5's bucketing is folded into the table at export, so no graph computes logarithms.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.export.blocks.builder import Builder
from edgedec.export.spec import Learned, RelativeBias, Rotary, Sinusoidal, Stack

MASKED = -1e9
"""Added to a score that must not count. Finite: a row with nothing to see stays finite too."""


def relative_bucket(
    distance: NDArray[np.int64], buckets: int, max_distance: int, *, bidirectional: bool
) -> NDArray[np.int64]:
    """T5's bucket of ``distance = query - key`` (arXiv 1910.10683, 2.1).

    Half of the buckets are single distances, the rest grow logarithmically up to
    ``max_distance``. Bidirectional attention spends half of them on keys after the query.
    """
    distance = np.asarray(distance, np.int64)
    after = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        after = np.where(distance < 0, buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(distance, 0)
    exact = buckets // 2
    with np.errstate(divide="ignore"):
        # float32 throughout, as trained: a border falls on the same side
        scaled = np.log(distance.astype(np.float32) / np.float32(exact)) / np.float32(
            math.log(max_distance / exact)
        )
        far = exact + np.maximum(scaled * np.float32(buckets - exact), 0).astype(np.int64)
    return after + np.where(distance < exact, distance, np.minimum(far, buckets - 1))


def encoder_table(bias: NDArray[np.float32], spec: RelativeBias) -> NDArray[np.float32]:
    """Fold ``bias [buckets, heads]`` to ``[heads, 2 R + 1]`` by ``query - key + R``."""
    reach = spec.max_distance
    distance = np.arange(-reach, reach + 1)
    bucket = relative_bucket(distance, spec.buckets, reach, bidirectional=True)
    return np.ascontiguousarray(bias[bucket].T)


def decoder_table(bias: NDArray[np.float32], spec: RelativeBias) -> NDArray[np.float32]:
    """Fold ``bias [buckets, heads]`` to ``[heads, R + 2]`` by ``query - key + 1``; 0 masks."""
    bucket = relative_bucket(
        np.arange(spec.max_distance + 1), spec.buckets, spec.max_distance, bidirectional=False
    )
    masked = np.full((bias.shape[1], 1), MASKED, np.float32)
    return np.concatenate([masked, bias[bucket].T], axis=1)


def length(b: Builder, x: ir.Value, axis: int, name: str) -> ir.Value:
    """A scalar int64: the size of one axis."""
    shape = b.op("Shape", x, start=axis, end=axis + 1, name=f"{name}.shape")
    return b.op("Squeeze", shape, name=name)


def span(b: Builder, count: ir.Value, name: str) -> ir.Value:
    """``[0, 1, ..., count - 1]`` as int64."""
    return b.op("Range", 0, count, 1, name=name)


class EncoderBias:
    """Attention bias of an encoder: padding, and for T5 the relative bias, ``[B, 1|H, S, S]``."""

    def __init__(self, b: Builder, stack: Stack, input_ids: ir.Value, padding: ir.Value) -> None:
        self._b, self._stack, self._padding = b, stack, padding
        self._shared: ir.Value | None = None
        with b.scope("encoder", "bias"):
            size = length(b, input_ids, 1, "length")
            place = span(b, size, "range")
            self._row = b.op("Unsqueeze", place, [1], name="query")
            self._column = b.op("Unsqueeze", place, [0], name="key")
            self._square = b.op(
                "Concat",
                *(b.op("Unsqueeze", v, [0]) for v in (size, size)),
                axis=0,
                name="square",
            )

    def layer(self, i: int) -> ir.Value:
        """The bias of layer ``i``, computed once where layers share it."""
        positions = self._stack.positions
        per_layer = isinstance(positions, RelativeBias) and positions.per_layer
        if per_layer:
            return self._emit(i)
        if self._shared is None:
            self._shared = self._emit(0)
        return self._shared

    def _emit(self, i: int) -> ir.Value:
        b, positions = self._b, self._stack.positions
        with b.scope("encoder", i, "self_attn"):
            if not isinstance(positions, RelativeBias):
                return b.op("Expand", self._padding, self._square, name="mask")
            weights = b.read("relative_bias.weight")
            table = b.table("relative_bias.table", encoder_table(weights, positions))
            reach = positions.max_distance
            distance = b.op("Sub", self._row, self._column, name="distance")
            index = b.op("Add", b.op("Clip", distance, -reach, reach, name="clip"), reach)
            bias = b.op("Gather", table, index, axis=1, name="relative_bias")  # [H, S, S]
            return b.op("Add", b.op("Unsqueeze", bias, [0]), self._padding, name="mask")


class DecoderBias:
    """Self-attention bias of decoder stages over the whole cache, ``[B, 1|H, T', M]``.

    Row b's new token t stands at cache index ``past_length[b] + t`` and sees keys up to itself.
    Entries of the cache beyond that are unwritten or stale, and masked the same way.
    """

    def __init__(
        self, b: Builder, stack: Stack, past_length: ir.Value, new: ir.Value, cache: ir.Value
    ) -> None:
        self._b, self._stack = b, stack
        self._shared: ir.Value | None = None
        with b.scope("decoder", "bias"):
            steps = span(b, length(b, new, 1, "new"), "new.range")
            keys = span(b, length(b, cache, 1, "capacity"), "key")
            query = b.op("Add", b.op("Unsqueeze", past_length, [1]), steps, name="query")
            distance = b.op("Sub", b.op("Unsqueeze", query, [2]), keys, name="distance")
            self._index = b.op("Add", distance, 1, name="index")  # [B, T', M]; below 1: unseen

    def layer(self, i: int) -> ir.Value:
        """The bias of layer ``i``, computed once where layers share it."""
        positions = self._stack.positions
        if isinstance(positions, RelativeBias) and positions.per_layer:
            return self._emit(i, i)
        if self._shared is None:
            self._shared = self._emit(i, 0)
        return self._shared

    def _emit(self, i: int, source: int) -> ir.Value:
        b, positions = self._b, self._stack.positions
        if isinstance(positions, RelativeBias):
            with b.scope("decoder", source, "self_attn"):
                weights = b.read("relative_bias.weight")
                table = decoder_table(weights, positions)
        else:
            table = np.array([[MASKED, 0.0]], np.float32)
        with b.scope("decoder", i, "self_attn"):
            values = b.table("relative_bias.table", table)
            index = b.op("Clip", self._index, 0, table.shape[1] - 1, name="clip")
            bias = b.op("Gather", values, index, axis=1, name="relative_bias")  # [H, B, T', M]
            return b.op("Transpose", bias, perm=[1, 0, 2, 3], name="mask")


class RotaryAngles:
    """Cosines and sines ``[B, T, head_dim / 2]`` of the positions, once per graph."""

    def __init__(self, b: Builder, rotary: Rotary, positions: ir.Value) -> None:
        with b.scope("rotary"):
            frequencies = np.array(rotary.inverse_frequencies, np.float32)
            place = b.op("Cast", positions, to=ir.DataType.FLOAT, name="positions")
            angle = b.op(
                "Mul",
                b.op("Unsqueeze", place, [-1]),
                b.table("frequencies", frequencies),
                name="angle",
            )
            self.cos = b.op("Cos", angle, name="cos")
            self.sin = b.op("Sin", angle, name="sin")

    def rotate(self, b: Builder, x: ir.Value, heads: int, name: str) -> ir.Value:
        """Rotate ``x [B, T, heads * head_dim]`` (ONNX RotaryEmbedding, halves layout)."""
        return b.op("RotaryEmbedding", x, self.cos, self.sin, num_heads=heads, name=name)


def add_positions(
    b: Builder, x: ir.Value, positions: Learned | Sinusoidal, place: ir.Value, rows: int, width: int
) -> ir.Value:
    """Add the table's rows at ``place [B, T]`` or ``[T]`` to ``x [B, T, width]``."""
    offset = positions.offset if isinstance(positions, Learned) else 0
    table = b.weight("positions.weight", (rows + offset, width))
    index = b.op("Add", place, offset, name="positions.index") if offset else place
    return b.op("Add", x, b.op("Gather", table, index, name="positions"), name="positions.add")
