"""Random weights that behave like trained ones to a processor: all finite, none tiny."""

from __future__ import annotations

from functools import partial
from math import sqrt
from zlib import crc32

import numpy as np

from edgedec.export.spec import ModelSpec
from edgedec.export.weights import Array, Tensor, Weights
from edgedec.study.shapes import tensors

SPREAD = 0.02
"""Standard deviation of biases, and of norms' weights around 1. They are no constants, because a
weight file keeps equal tensors once."""


def random_weights(spec: ModelSpec, seed: int) -> Weights:
    """A model's weights; each is made when it is read, and depends on seed, name and shape only.

    Matrices keep the size of what goes through them, whatever the depth: a standard deviation of
    ``columns ** -0.5``, divided by the square root of the number of blocks where a block writes to
    the residual stream. Values are uniform, which is quick, and multiples of ``2 ** -24`` of the
    range: none is subnormal.
    """
    weights = Weights({}, {}, {})
    blocks = 3 * spec.decoder.layers + (0 if spec.encoder is None else 2 * spec.encoder.layers)
    for name, shape in tensors(spec).items():
        middle, deviation = _distribution(name, shape, blocks)
        load = partial(_uniform, name, shape, middle, deviation, seed)
        weights.put(name, Tensor(name, shape, "float32", load))
    for same in ("head.weight", *(() if spec.encoder is None else ("encoder.embed.weight",))):
        weights.alias(same, "decoder.embed.weight")
    return weights


def _distribution(name: str, shape: tuple[int, ...], blocks: int) -> tuple[float, float]:
    """Mean and standard deviation."""
    if len(shape) == 1:
        return (1.0 if name.endswith("norm.weight") else 0.0), SPREAD
    writes = name.endswith((".o.weight", ".down.weight"))
    return 0.0, 1 / sqrt(shape[1] * (blocks if writes else 1))


def _uniform(
    name: str, shape: tuple[int, ...], middle: float, deviation: float, seed: int
) -> Array:
    rng = np.random.default_rng([seed, crc32(name.encode())])
    values = rng.random(shape, np.float32)
    values -= np.float32(0.5)
    values *= np.float32(sqrt(12) * deviation)
    values += np.float32(middle)
    return values
