"""Matrices as integers with scales: the scales that lose least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRIED = {4: (8 / 7, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65), 8: (128 / 127, 1.0)}
"""Scales that are tried, by the one at which the largest value has the lowest integer. The first
cuts nothing off; with few levels it pays to cut off large values for the sake of all others."""
CHUNK = 1 << 20
"""Values that are worked on at a time: they stay in the processor's cache."""


SMALLEST_HALF, LARGEST_HALF = np.float32(2**-24), np.float32(65504)
"""The least and the greatest number above 0 that float16 has."""


def fit_groups(
    values: NDArray[np.float32], bits: int, *, signed: bool = False, half: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round groups of values to integers with one scale each.

    Of some scales the one with the least squared error is taken, and moved to the best for its
    integers (least squares), where that lowers the error.

    Args:
        values: ``[groups, n]``.
        bits: 4 or 8: integers from ``-2**(bits-1)`` to ``2**(bits-1) - 1``.
        signed: scales may be negative, so that a group's largest value may have the lowest
            integer, of which there is one more.
        half: scales are numbers of float16, and so are the values that come out if those that go
            in are (`check_half`). A scale below all of them becomes the least.

    Returns:
        Integers int8 ``[groups, n]`` and scales float32 ``[groups]``, none of them 0.
    """
    groups, n = values.shape
    codes = np.empty((groups, n), np.int8)
    scales = np.empty(groups, np.float32)
    step = max(1, CHUNK // max(1, n))
    for first in range(0, groups, step):
        part = slice(first, first + step)
        group = values[part].astype(np.float32)
        codes[part], scales[part] = _fit(group, bits, signed=signed, half=half)
    return codes, scales


def _fit(
    values: NDArray[np.float32], bits: int, *, signed: bool, half: bool
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    lowest, highest = -(1 << bits - 1), (1 << bits - 1) - 1
    low, high = values.min(1), values.max(1)
    flipped = (high > -low) & signed
    sign = np.where(flipped, np.float32(-1), np.float32(1))
    largest = np.maximum(high, -low) / -lowest
    # of zeros, and of numbers so small that their scale would be none
    base = np.where(largest > np.finfo(np.float32).tiny, largest, 1).astype(np.float32) * sign
    best = np.full(len(values), np.inf, np.float32)
    codes = np.zeros(values.shape, np.float32)
    scales = _stored(base, half)

    def take(scale: NDArray[np.float32], rounded: NDArray[np.float32]) -> None:
        """Keep what loses less than what was best so far."""
        found = rounded * scale[:, None]
        error = np.square(values - found).sum(1)
        better = error < best
        if half:
            better &= np.abs(found).max(1) <= LARGEST_HALF
        best[better], codes[better], scales[better] = error[better], rounded[better], scale[better]

    def nearest(scale: NDArray[np.float32]) -> NDArray[np.float32]:
        rounded = np.rint(values * (1 / scale)[:, None])
        return np.clip(rounded, lowest, highest, out=rounded)

    for factor in TRIED[bits]:
        scale = _stored(base * np.float32(factor), half)
        take(scale, nearest(scale))
    if half:
        # the least scales lie so far apart that the nearest one may cut off much
        away = np.copysign(np.float16(np.inf), sign.astype(np.float16))
        above = np.nextafter(_stored(base, half).astype(np.float16), away)
        scale = _stored(above.astype(np.float32), half)
        take(scale, nearest(scale))
    power = np.square(codes).sum(1)
    refit = (values * codes).sum(1) / np.maximum(power, 1)
    scale = _stored(np.where(refit != 0, refit, base).astype(np.float32), half)
    # a scale that is rounded is not quite the best for these integers: there may be better ones
    take(scale, nearest(scale) if half else codes.copy())
    return codes.astype(np.int8), scales


def _stored(scales: NDArray[np.float32], half: bool) -> NDArray[np.float32]:
    """Scales as they are stored; none becomes 0."""
    if not half:
        return scales
    size = np.clip(np.abs(scales), SMALLEST_HALF, LARGEST_HALF).astype(np.float16)
    return np.copysign(size.astype(np.float32), scales)


def to_blocks(values: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """``[rows, columns]`` as ``[rows * blocks, block]``."""
    return values.reshape(-1, block)


def from_blocks(
    codes: NDArray[np.int8], scales: NDArray[np.float32], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """The values ``[rows, columns]`` that integers and scales of blocks stand for."""
    return (codes * scales[:, None]).reshape(shape).astype(np.float32)
