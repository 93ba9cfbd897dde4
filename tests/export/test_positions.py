"""Masks and relative positions, as ONNX Runtime computes them, against loops over every pair."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.export.blocks.builder import Builder
from edgedec.export.blocks.positions import (
    MASKED,
    DecoderBias,
    EncoderBias,
    decoder_table,
    encoder_table,
    relative_bucket,
)
from edgedec.export.spec import Positions, RelativeBias, Rotary, Stack
from edgedec.export.weights import Tensor, Weights

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
HEADS = 3
SHAPES = [(32, 128), (32, 64), (8, 20), (6, 7), (4, 3), (16, 1000), (10, 11)]


def exact_bucket(distance: int, buckets: int, reach: int, bidirectional: bool) -> set[int]:
    """T5's bucket in whole numbers; both neighbours where a border falls on the distance itself."""
    after = 0
    if bidirectional:
        buckets //= 2
        after = buckets if distance < 0 else 0
        distance = abs(distance)
    distance = max(distance, 0)
    near = buckets // 2
    if distance < near:
        return {after + distance}
    steps = buckets - near
    # log(distance / near) / log(reach / near) * steps >= k, without the logarithms
    sides = [(distance**steps * near**k, reach**k * near**steps) for k in range(1, 2 * steps + 40)]
    passed = sum(left >= right for left, right in sides)
    on_border = any(left == right for left, right in sides)
    return {
        after + min(near + passed - less, buckets - 1) for less in ({0, 1} if on_border else {0})
    }


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "reach"), SHAPES)
def test_buckets_in_whole_numbers(buckets: int, reach: int, bidirectional: bool) -> None:
    distances = np.arange(-1000, 1001)
    found = relative_bucket(distances, buckets, reach, bidirectional=bidirectional)
    for distance, bucket in zip(distances, found, strict=True):
        assert bucket in exact_bucket(int(distance), buckets, reach, bidirectional), distance


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "reach"), SHAPES)
def test_buckets_of_transformers(buckets: int, reach: int, bidirectional: bool) -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = np.arange(-1000, 1001)
    expected = modeling.T5Attention._relative_position_bucket(
        torch.from_numpy(-distances),  # there it is key minus query
        bidirectional=bidirectional,
        num_buckets=buckets,
        max_distance=reach,
    )
    found = relative_bucket(distances, buckets, reach, bidirectional=bidirectional)
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize(("buckets", "reach"), SHAPES)
def test_tables_hold_every_distance(buckets: int, reach: int) -> None:
    """Beyond the reach of a table all distances are alike."""
    spec = RelativeBias(buckets, reach, per_layer=False)
    bias = np.random.default_rng(0).normal(size=(buckets, HEADS)).astype(np.float32)
    encoder, decoder = encoder_table(bias, spec), decoder_table(bias, spec)
    assert encoder.shape == (HEADS, 2 * reach + 1)
    assert decoder.shape == (HEADS, reach + 2)
    assert encoder.flags.c_contiguous
    distances = np.arange(-1500, 1501)
    both = relative_bucket(distances, buckets, reach, bidirectional=True)
    found = encoder[:, np.clip(distances, -reach, reach) + reach]
    np.testing.assert_array_equal(found.T, bias[both])
    past = relative_bucket(distances, buckets, reach, bidirectional=False)
    found = decoder[:, np.clip(distances + 1, 0, reach + 1)]
    wanted = np.where(distances[:, None] < 0, np.float32(MASKED), bias[past])
    np.testing.assert_array_equal(found.T, wanted)


def stack(positions: Positions) -> Stack:
    return Stack(
        layers=2,
        heads=HEADS,
        kv_heads=HEADS,
        head_dim=2,
        d_ff=2,
        activation="relu",
        gated=False,
        norm="rms",
        norm_epsilon=1e-6,
        norm_first=True,
        embedding_norm=False,
        final_norm=True,
        positions=positions,
        attention_scale=1.0,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
    )


NONE = Rotary((1.0,))
"""Positions that add nothing to the scores."""
KINDS: list[Positions] = [
    NONE,
    RelativeBias(8, 20, per_layer=False),
    RelativeBias(6, 7, per_layer=True),
    RelativeBias(32, 128, per_layer=False),
]


def biases(positions: Positions, layer: int) -> NDArray[np.float32]:
    """A layer's own bias ``[buckets, heads]``."""
    assert isinstance(positions, RelativeBias)
    owner = layer if positions.per_layer else 0
    rng = np.random.default_rng(owner)
    return rng.normal(size=(positions.buckets, HEADS)).astype(np.float32)


@functools.cache
def relative(kind: int, layer: int, distance: int, encoder: bool) -> NDArray[np.float32]:
    """What the scores of a pair get, for every head."""
    positions = KINDS[kind]
    if not isinstance(positions, RelativeBias):
        return np.zeros(HEADS, np.float32)
    bucket = relative_bucket(
        np.array(distance), positions.buckets, positions.max_distance, bidirectional=encoder
    )
    return biases(positions, layer)[bucket]


@functools.cache
def session(kind: int, encoder: bool) -> Any:
    """A graph of nothing but the bias of two layers."""
    positions = KINDS[kind]
    weights = Weights({}, {}, {})
    if isinstance(positions, RelativeBias):
        for i in (0, 1):
            name = f"{'encoder' if encoder else 'decoder'}.{i}.self_attn.relative_bias.weight"
            load = functools.partial(biases, positions, i)
            weights.put(name, Tensor(name, (positions.buckets, HEADS), "float32", load))
    b = Builder("bias", weights, "fp32")
    bias: EncoderBias | DecoderBias
    if encoder:
        ids = b.input("input_ids", INT64, ["batch", "source"])
        padding = b.input("padding", FLOAT, ["batch", 1, 1, "source"])
        bias = EncoderBias(b, stack(positions), ids, padding)
    else:
        new = b.input("new", INT64, ["batch", "new"])
        past_length = b.input("past_length", INT64, ["batch"])
        cache = b.input("cache", FLOAT, ["batch", "capacity", 2])
        bias = DecoderBias(b, stack(positions), past_length, new, cache)
    first, second = bias.layer(0), bias.layer(1)
    assert (first is second) == (not getattr(positions, "per_layer", False))
    with b.scope("test"):
        for i, value in enumerate((first, second)):
            copy = b.op("Identity", value)
            b.output(f"bias.{i}", copy, FLOAT, ["batch", "heads", "query", "key"])
    data = ir.serde.serialize_model(b.model("test", "0")).SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", range(len(KINDS)))
@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_encoder(kind: int, lengths: list[int]) -> None:
    rows, size = len(lengths), max(lengths)
    padding = np.where(np.arange(size) < np.array(lengths)[:, None], 0, MASKED).astype(np.float32)
    ids = np.zeros((rows, size), np.int64)
    found = session(kind, True).run(None, {"input_ids": ids, "padding": padding[:, None, None, :]})
    for layer, bias in enumerate(found):
        full = np.broadcast_to(bias, (rows, HEADS, size, size))
        for row, length in enumerate(lengths):
            wanted = np.array(
                [[relative(kind, layer, q - k, True) for k in range(length)] for q in range(size)]
            )
            seen = full[row, :, :, :length].transpose(1, 2, 0)
            np.testing.assert_array_equal(seen, wanted)
            assert (full[row, :, :, length:] < MASKED / 2).all()


@pytest.mark.parametrize("kind", range(len(KINDS)))
@settings(max_examples=25)
@given(data=st.data())
def test_decoder(kind: int, data: st.DataObject) -> None:
    """Rows with pasts of different lengths, any number of new tokens, any room behind them."""
    past = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=3), "past")
    new = data.draw(st.integers(1, 6), "new")
    capacity = max(past) + new + data.draw(st.integers(0, 9), "spare")
    rows = len(past)
    found = session(kind, False).run(
        None,
        {
            "new": np.zeros((rows, new), np.int64),
            "past_length": np.array(past),
            "cache": np.zeros((rows, capacity, 2), np.float32),
        },
    )
    masked = np.full(HEADS, MASKED, np.float32)
    for layer, bias in enumerate(found):
        full = np.broadcast_to(bias, (rows, HEADS, new, capacity))
        for row, length in enumerate(past):
            for token in range(new):
                at = length + token
                # what comes after the token is hidden, written or not
                wanted = [
                    relative(kind, layer, at - key, False) if key <= at else masked
                    for key in range(capacity)
                ]
                np.testing.assert_array_equal(full[row, :, token].T, wanted)
