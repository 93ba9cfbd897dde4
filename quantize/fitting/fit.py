"""The state of fitting codebooks, scales and codes to some matrices with the same inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.fitting.columns import Tables
from edgedec.quantize.fitting.damping import Curvature
from edgedec.quantize.fitting.products import pieces
from edgedec.quantize.pool import Pool

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(eq=False)
class Fit:
    """N rows of K weights, transposed and with columns in the order of the curvature.

    A row counts in units of its scale s: weights are ``s * target`` and become ``s * levels``. With
    H the damped moments and h their diagonal, the objective is the sum over rows of
    ``s^2 (values - target)^T H (values - target)``.

    Attributes:
        curvature: H.
        starts: intp ``[G + 1]``: groups are runs of rows; they share nothing but H.
        scale: float64 ``[N]``, positive.
        used: bool ``[N]``, false for rows of zeros.
        unit: float64 ``[G]``: the largest scale of each group at its start.
        importance: float32 ``[N]``: ``(s / unit)^2``; 0 for rows of zeros, and for rows that are
            far too small to count beside others of their group.
        target: ``[K, N]``.
        pull: ``[K, N]``: ``H target / h``.
        levels: float32 ``[G, 2**bits]``, ascending.
        codes: uint8 ``[K, N]``.
        values: ``[K, N]``: the levels of the codes.
        residual: ``[K, N]``: ``H (values - target) / h``, half the gradient over h.
    """

    curvature: Curvature
    starts: NDArray[np.intp]
    scale: Doubles
    used: NDArray[np.bool_]
    unit: Doubles
    importance: Array
    target: Array
    pull: Array
    levels: Array
    codes: NDArray[np.uint8]
    values: Array
    residual: Array

    @property
    def group(self) -> NDArray[np.intp]:
        """The group of each row, ``[N]``."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @property
    def tables(self) -> Tables:
        """What rows choose from."""
        return Tables.of(self.levels, self.group)

    def index(self, part: slice) -> NDArray[np.intp]:
        """Where the levels of some rows' codes are in ``levels.ravel()``: ``[K, n]``."""
        index: NDArray[np.intp] = self.codes[:, part] + self.group[part] * self.levels.shape[1]
        return index

    def look_up(self, pool: Pool) -> None:
        """Set the values that codes and levels stand for."""

        def piece(part: slice) -> None:
            self.values[:, part] = self.levels.ravel()[self.index(part)]

        pool.map(piece, pieces(self.codes.shape[1]))

    def measure(self, pool: Pool) -> None:
        """Set the residual, by one product."""
        coupling = self.curvature.coupling

        def piece(part: slice) -> None:
            residual, values = self.residual[:, part], self.values[:, part]
            np.matmul(coupling, values, out=residual)
            residual += values
            residual -= self.pull[:, part]

        pool.map(piece, pieces(self.codes.shape[1]))

    def rescale(self, factor: Doubles) -> None:
        """Count rows in units that are ``factor [N]`` times larger."""
        self.scale *= factor
        smaller = (1 / factor).astype(np.float32)
        self.importance *= (factor * factor).astype(np.float32)
        self.target *= smaller
        self.pull *= smaller

    def objective(self, pool: Pool) -> Doubles:
        """Of each group, over h's unit; needs the residual."""

        def piece(part: slice) -> Doubles:
            error = self.values[:, part] - self.target[:, part]
            error *= self.residual[:, part]
            return (self.curvature.diagonal @ error).astype(np.float64)

        return self._by_group(pool.map(piece, pieces(self.codes.shape[1])))

    def energy(self, pool: Pool) -> Doubles:
        """The objective of each group if all values were 0."""

        def piece(part: slice) -> Doubles:
            product = self.target[:, part] * self.pull[:, part]
            return (self.curvature.diagonal @ product).astype(np.float64)

        return self._by_group(pool.map(piece, pieces(self.codes.shape[1])))

    def _by_group(self, rows: list[Doubles]) -> Doubles:
        sums = np.add.reduceat(np.concatenate(rows) * self.importance, self.starts[:-1])
        # where nothing is left but rounding, it may be below 0
        return np.maximum(sums, 0) * self.unit**2
