"""Matrices with inputs, and what their objectives are, computed slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.statistics import Statistics

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
Random = np.random.Generator

ROWS: dict[str, Callable[[Random, tuple[int, int]], NDArray[Any]]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails": lambda rng, shape: rng.standard_t(1.5, shape),
    "one large row": lambda rng, shape: (
        rng.standard_normal(shape) * np.where(np.arange(shape[0]) == 0, 30, 1)[:, None]
    ),
    "few huge weights": lambda rng, shape: (
        rng.standard_normal(shape) * np.where(rng.random(shape) < 0.01, 40, 1)
    ),
    "rows of zeros": lambda rng, shape: (
        rng.standard_normal(shape) * (rng.random((shape[0], 1)) < 0.7)
    ),
    "constant": lambda rng, shape: np.full(shape, rng.standard_normal()),
    "two values": lambda rng, shape: rng.choice([-1.0, 0.25], shape),
    "rows of all sizes": lambda rng, shape: (
        rng.standard_normal(shape) * 10.0 ** rng.uniform(-20, 20, (shape[0], 1))
    ),
}
INPUTS: dict[str, Callable[[Random, int], NDArray[Any]]] = {
    "correlated": lambda rng, size: (
        rng.standard_normal((300, size)) @ (rng.standard_normal((size, size)) + 1)
    ),
    "fewer than columns": lambda rng, size: rng.standard_normal((max(size // 3, 1), size)),
    "some never used": lambda rng, size: (
        rng.standard_normal((200, size)) * (rng.random(size) < 0.6)
    ),
    "none": lambda rng, size: np.zeros((5, size)),
    "one large": lambda rng, size: (
        rng.standard_normal((200, size)) * np.where(np.arange(size) == size // 2, 1e4, 1)
    ),
    "tiny": lambda rng, size: rng.standard_normal((200, size)) * 1e-12,
}


def matrix(kind: str, shape: tuple[int, int], seed: int) -> Array:
    """One of `ROWS`."""
    return ROWS[kind](np.random.default_rng(seed), shape).astype(np.float32)


def statistics(kind: str, columns: int, seed: int) -> Statistics:
    """Of one of `INPUTS`, without drift."""
    inputs = INPUTS[kind](np.random.default_rng(seed), columns)
    moments = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    return Statistics(len(inputs), moments, moments, None)


def objective(values: NDArray[np.floating], target: NDArray[np.floating], hessian: Array) -> float:
    """tr((values - target) H (values - target)^T)."""
    error = values.astype(np.float64) - target
    return float(np.trace(error @ hessian.astype(np.float64) @ error.T))


def same(one: CodebookTensor, other: CodebookTensor) -> bool:
    """Whether all fields are equal to the last bit."""
    names = ("codes", "codebooks", "row_scale", "group_of_row", "bits", "row_order")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 40))
SEEDS = st.integers(0, 1000)
BITS = st.sampled_from([2, 3, 4])
