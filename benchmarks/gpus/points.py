"""One product, where it runs, what is fed and what is right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 16
"""Results are worked out for so many rows at once: those of fewer rows are the first of them."""


@dataclass(frozen=True)
class Point:
    """``y [rows, n] = x [rows, k] . W [n, k]^T``."""

    rows: int
    n: int
    k: int
    seed: int = 0

    @property
    def all_rows(self) -> Point:
        """The same with as many rows as results are worked out for."""
        return replace(self, rows=max(self.rows, MOST_ROWS))


@dataclass(frozen=True)
class Place:
    """Where a contestant runs.

    Attributes:
        device: torch's word: "cuda", or "cpu" in tests.
        rotated: bytes of weights that launches take in turns.
    """

    device: str
    rotated: int


def inputs(point: Point) -> NDArray[np.float16]:
    """x: the first rows of what more rows would be; without zeros, which may take less time."""
    rng = np.random.default_rng(point.seed + 1)
    return rng.standard_normal((point.rows, point.k), np.float32).astype(np.float16)


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Norm of the difference by the norm of what is expected; NaN where a value is NaN."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
