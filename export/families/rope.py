"""Rotary frequencies from a configuration, long-context scalings included."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgedec.export.families import Config
from edgedec.export.families.fields import refuse
from edgedec.export.spec import Rotary, check_sizes

Frequencies = NDArray[np.float64]
LARGEST_HEAD = 1 << 16


def rotary(config: Config, head_dim: int) -> Rotary:
    """Inverse frequencies of ``rope_parameters`` (or the older ``rope_theta``/``rope_scaling``).

    Scalings: none, ``linear`` (arXiv 2306.15595) and ``llama3`` (arXiv 2407.21783, 3.2); others
    also rescale attention and are refused.
    """
    check_sizes(LARGEST_HEAD, head_dim=head_dim)
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    refuse(kind not in SCALINGS, f"the rotary scaling {kind!r}")
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    return Rotary(tuple(float(f) for f in SCALINGS[kind](frequencies, rope)))


def _plain(frequencies: Frequencies, _rope: Config) -> Frequencies:
    return frequencies


def _linear(frequencies: Frequencies, rope: Config) -> Frequencies:
    return frequencies / np.float64(rope["factor"])


def _llama3(frequencies: Frequencies, rope: Config) -> Frequencies:
    """Slow waves are stretched by ``factor``, fast ones kept, those between interpolated."""
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    scaled: Frequencies = frequencies * (kept + (1 - kept) / rope["factor"])
    return scaled


SCALINGS = {"default": _plain, "linear": _linear, "llama3": _llama3}
