"""Matrices whose rows have different distributions, and what grouping makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgedec.quantize.fitting.objective import relative_error
from edgedec.quantize.jlcm import jlcm
from edgedec.quantize.method import Grouping, Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.statistics import Statistics

Array = NDArray[np.float32]
TOKENS = 4096
FREEDOM = 3
"""Of Student's t: its fourth moment does not exist."""
OUTLIER_ROWS, OUTLIERS, LARGER = 0.1, 0.01, 10
"""A part of the rows has a part of its weights so many times larger."""
GROUPINGS: tuple[Grouping, ...] = ("contiguous", "distribution", "auto")


@dataclass(frozen=True)
class Outcome:
    """Mean over some matrices: error of outputs as in reports, and stored bits per weight."""

    weights: str
    bits: int
    groups: int
    grouping: str
    bits_per_weight: float
    error: float


def _normal(random: np.random.Generator, rows: int, columns: int) -> Array:
    return random.standard_normal((rows, columns), np.float32)


def _mixed(random: np.random.Generator, rows: int, columns: int) -> Array:
    """Every other row, at random, has heavy tails."""
    weights = _normal(random, rows, columns)
    heavy = random.permutation(rows)[: rows // 2]
    weights[heavy] = random.standard_t(FREEDOM, (len(heavy), columns))
    return weights


def _sorted(random: np.random.Generator, rows: int, columns: int) -> Array:
    """The same, but rows with heavy tails come last: contiguous groups fit by themselves."""
    weights = _normal(random, rows, columns)
    weights[rows // 2 :] = random.standard_t(FREEDOM, (rows - rows // 2, columns))
    return weights


def _outliers(random: np.random.Generator, rows: int, columns: int) -> Array:
    """A few rows, at random, have a few weights that are much larger than the rest."""
    weights = _normal(random, rows, columns)
    rare = random.permutation(rows)[: int(rows * OUTLIER_ROWS)]
    larger = random.random((len(rare), columns)) < OUTLIERS
    weights[rare] *= np.where(larger, np.float32(LARGER), np.float32(1))
    return weights


WEIGHTS = MappingProxyType[str, Callable[[np.random.Generator, int, int], Array]](
    {
        "normal": _normal,
        "half heavy-tailed": _mixed,
        "half heavy-tailed, sorted": _sorted,
        "outlier rows": _outliers,
    }
)
"""Name -> maker of a matrix ``[rows, columns]``."""


def grouped(
    weights: str, rows: int, columns: int, bits: int, groups: int, seeds: int, threads: int
) -> Iterator[Outcome]:
    """One outcome for each way to group.

    Args:
        weights: one of `WEIGHTS`.
        rows: of a matrix.
        columns: of a matrix.
        bits: of its codes.
        groups: codebooks.
        seeds: how many matrices.
        threads: to compute with.
    """
    with Pool(threads) as pool:
        for grouping in GROUPINGS:
            settings = replace(Settings(groups=groups), grouping=grouping)
            errors, sizes = [], []
            for seed in range(seeds):
                random = np.random.default_rng(seed)
                statistics = _inputs(random, columns)
                matrix = WEIGHTS[weights](random, rows, columns)
                (found,) = jlcm([matrix], statistics, bits, settings, pool)
                errors.append(relative_error(found.dequantize(), matrix, statistics.plain))
                sizes.append(found.bits_per_weight)
            yield Outcome(weights, bits, groups, grouping, fmean(sizes), fmean(errors))


def _inputs(random: np.random.Generator, columns: int) -> Statistics:
    """Correlated inputs: few directions have most of the energy, as in trained models."""
    energies = 1 / np.arange(1, columns + 1, dtype=np.float32)
    mixing = np.linalg.qr(random.standard_normal((columns, columns)))[0].astype(np.float32)
    tokens = random.standard_normal((TOKENS, columns), np.float32)
    inputs: Array = (tokens * np.sqrt(energies)) @ mixing
    moments: Array = inputs.T @ inputs / np.float32(TOKENS)
    return Statistics(TOKENS, moments, moments, None)
