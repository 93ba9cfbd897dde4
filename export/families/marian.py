"""Marian: BART's shape with fixed sinusoidal positions (arXiv 1804.00344)."""

from __future__ import annotations

import numpy as np

from edgedec.export.families import Config, Family, register
from edgedec.export.families.bart import LAYER, names, post_norm_spec
from edgedec.export.families.fields import refuse
from edgedec.export.spec import ModelSpec, Sinusoidal
from edgedec.export.weights import Array, Tensor, Tensors, Weights


def spec(config: Config, tensors: Tensors) -> ModelSpec:
    """Read a Marian configuration."""
    refuse(
        config.get("share_encoder_decoder_embeddings") is False
        or config.get("decoder_vocab_size", config["vocab_size"]) != config["vocab_size"],
        "separate source and target vocabularies",
    )
    return post_norm_spec(config, tensors, "marian", Sinusoidal(), embedding_norm=False)


def put_positions(spec: ModelSpec, weights: Weights) -> None:
    """The position table is a formula; few checkpoints store it."""
    assert spec.max_source is not None
    shape = (spec.max_source, spec.d_model)
    table = Tensor("sinusoidal positions", shape, "float32", lambda: sinusoids(*shape))
    for side in ("encoder", "decoder"):
        weights.put(f"{side}.positions.weight", table)


def sinusoids(positions: int, channels: int) -> Array:
    """Position table ``[positions, channels]``: all sines, then all cosines."""
    pair = np.arange(0, channels, 2) / channels
    angle = np.arange(positions)[:, None] / np.power(10000.0, pair)[None, :]
    return np.concatenate([np.sin(angle), np.cos(angle[:, : channels // 2])], axis=1).astype(
        np.float32
    )


register(Family(("marian",), spec, names, LAYER, put_positions))
