"""What happens to the levels of codebooks without looking at single weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.codebook import LARGEST_LEVEL

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

UNITS = np.geomspace(1, 1 / 16, 97)
"""Of a 63rd of the largest level: what is tried as the difference of two integers."""


def as_integers(levels: Doubles, mass: Doubles) -> tuple[Array, Doubles]:
    """Levels as kernels hold them, integers within +-63, and what 1 stands for.

    The unit is the one that moves levels least, weighted by what they stand for. Dividing the
    largest into 63 parts would leave few levels to the many weights around 0 where a few weights
    are huge: then these are cut instead. Some level is always +-63, so packing changes nothing.

    Args:
        levels: ``[G, L]``.
        mass: ``[G, L]``: importance of the weights of each level.

    Returns:
        Float32 ``[G, L]`` and ``[G]``, 1 for codebooks that are all 0.
    """
    largest = np.abs(levels).max(axis=1) / LARGEST_LEVEL
    largest[largest == 0] = 1
    units = UNITS[:, None, None] * largest[:, None]
    integers = np.clip(np.rint(levels / units), -LARGEST_LEVEL, LARGEST_LEVEL)
    moved = (mass * (integers * units - levels) ** 2).sum(axis=2)
    best = moved.argmin(axis=0)
    groups = np.arange(len(levels))
    return integers[best, groups].astype(np.float32), units[best, groups, 0]


def split_worst(levels: Doubles, dead: NDArray[np.bool_], loss: Doubles, mass: Doubles) -> None:
    """Move levels without weights beside those that lose most; the order may change.

    Args:
        levels: ``[L]``, changed.
        dead: which have no weights.
        loss: the squared distances of each level's weights, summed with their importance.
        mass: the importance of each level's weights.
    """
    worst = np.argsort(-loss, kind="stable")
    for empty, full in zip(np.flatnonzero(dead), worst, strict=False):
        if loss[full] <= 0:
            break
        levels[empty] = levels[full] + np.sqrt(loss[full] / mass[full])
