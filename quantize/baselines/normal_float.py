"""NF4: levels at quantiles of a normal distribution (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.baselines.fixed import in_blocks, round_blocks, round_rows
from edgedec.quantize.codebook import CodebookTensor

BLOCK = 64
LEVELS = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
)
"""Appendix E of the paper."""


def normal_float_rows(weight: NDArray[np.float32]) -> CodebookTensor:
    """Quantize a matrix ``[N, K]`` to 4 bits with the largest weight of each row as its scale.

    Raises:
        ValueError: no matrix, or weights that are NaN, infinite or above 1e30.
    """
    return round_rows(weight, LEVELS, np.abs(weight).max(axis=1, initial=0))


def normal_float_blocks(weight: NDArray[np.float32], block: int = BLOCK) -> NDArray[np.float32]:
    """What a matrix becomes with a float16 scale for each row and ``block`` columns.

    Raises:
        ValueError: no matrix, or weights that are NaN, infinite or above 1e30.
    """
    return round_blocks(weight, LEVELS, np.abs(in_blocks(weight, block)).max(axis=2), block)
