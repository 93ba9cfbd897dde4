"""Position formulas against transformers' own, over all distances instead of a model's few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.parity.harness import torch, transformers

from edgedec.export.blocks.positions import (
    MASKED,
    decoder_table,
    encoder_table,
    relative_bucket,
)
from edgedec.export.families.marian import sinusoids
from edgedec.export.families.rope import rotary
from edgedec.export.spec import RelativeBias

REACH = 600
BUCKETS = [(32, 128), (32, 64), (32, 20), (8, 16), (16, 100), (64, 256), (12, 50)]


@pytest.mark.parametrize(("buckets", "max_distance"), BUCKETS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets(buckets: int, max_distance: int, bidirectional: bool) -> None:
    distance = np.arange(-REACH, REACH + 1)
    attention = transformers.models.t5.modeling_t5.T5Attention
    theirs = attention._relative_position_bucket(
        -torch.from_numpy(distance), bidirectional, buckets, max_distance
    )
    ours = relative_bucket(distance, buckets, max_distance, bidirectional=bidirectional)
    assert (ours == theirs.numpy()).all()


@pytest.mark.parametrize(("buckets", "max_distance"), BUCKETS)
def test_folded_tables_are_the_buckets(buckets: int, max_distance: int) -> None:
    """A table that is clipped at ``max_distance`` says the same of every distance beyond."""
    bias = np.random.default_rng(0).normal(size=(buckets, 3)).astype(np.float32)
    spec = RelativeBias(buckets, max_distance, per_layer=False)
    distance = np.arange(-REACH, REACH + 1)

    both = encoder_table(bias, spec)[
        :, np.clip(distance, -max_distance, max_distance) + max_distance
    ]
    bucket = relative_bucket(distance, buckets, max_distance, bidirectional=True)
    assert (both == bias[bucket].T).all()

    table = decoder_table(bias, spec)
    past = table[:, np.clip(distance + 1, 0, table.shape[1] - 1)]
    bucket = relative_bucket(distance, buckets, max_distance, bidirectional=False)
    assert (past == np.where(distance < 0, np.float32(MASKED), bias[bucket].T)).all()


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"rope_type": "default", "rope_theta": 10000.0}),
        ({"rope_theta": 5e5}, {"rope_type": "default", "rope_theta": 5e5}),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 3.0}},
            {"rope_type": "linear", "rope_theta": 1e6, "factor": 3.0},
        ),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, {**LLAMA3, "rope_theta": 5e5}),
    ],
    ids=["default", "theta", "linear", "llama3"],
)
def test_rotary_frequencies(old: dict[str, Any], new: dict[str, Any]) -> None:
    head_dim = 64
    config = transformers.LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        rope_parameters=new,
        max_position_embeddings=131072,
    )
    theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq.numpy()
    for ours in (rotary(old, head_dim), rotary({"rope_parameters": new}, head_dim)):
        np.testing.assert_allclose(ours.inverse_frequencies, theirs, rtol=1e-6)


@pytest.mark.parametrize(("positions", "channels"), [(512, 64), (20, 6)])
def test_sinusoids(positions: int, channels: int) -> None:
    embedding = transformers.models.marian.modeling_marian.MarianSinusoidalPositionalEmbedding
    theirs = embedding(positions, channels).create_weight().detach().numpy()
    np.testing.assert_allclose(sinusoids(positions, channels), theirs, atol=1e-6)
