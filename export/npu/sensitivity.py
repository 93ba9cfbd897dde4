"""Which weights keep 8 bits where all others get 4: what 4 bits do to the model's predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedec.devices.npu.precision import (
    Weight,
    bits_per_weight,
    get_precision,
    round_weight,
    weight_bits,
)
from edgedec.errors import InputError
from edgedec.export.bundle import Progress
from edgedec.export.floats import float_graphs
from edgedec.export.learn import find_sites
from edgedec.export.sensitivity import Change, measure_losses
from edgedec.quantize.budget import Unit, choose_bits
from edgedec.quantize.calibration.segments import cut
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Array, Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.text.batches import Batch
from edgedec.runtime.bundle import Bundle

FEW, MANY = 4, 8
"""Bits of the precision, and those that a weight may keep."""
Round = Callable[[Matrix, int], Array]
"""A matrix and bits -> the values ``[rows, columns]`` that a device computes with."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    """What has the same bits: all weights of one name.

    Attributes:
        name: of the initializer.
        fixed: whether it is stored alike in either case, as what does not divide into blocks is.
        matrices: where the floating-point graphs read it, by ``id``; empty where what is looked
            for there does not include it.
        weights: stored weights: an embedding that is the head too is stored for either.
        stored: bits of codes -> stored bits of all of them.
    """

    name: str
    fixed: bool
    matrices: Mapping[int, Matrix]
    weights: int
    stored: Mapping[int, float]

    def unit(self, loss: float, ratio: float) -> Unit:
        """What `choose_bits` wants; ``ratio`` is the squared error of 8 bits by that of 4."""
        if self.fixed:
            losses = {FEW: 0.0}
        else:
            losses = {FEW: loss, MANY: loss * ratio} if self.matrices else {MANY: 0.0}
        per_weight = {bits: self.stored[bits] / self.weights for bits in losses}
        return Unit(self.weights, per_weight, losses)


def choose_eight(
    bundle: Bundle,
    batches: Sequence[Batch],
    weights: Sequence[Weight],
    precision: str,
    budget: float,
    *,
    pool: Pool,
    scratch: Path,
    progress: Progress,
) -> tuple[str, ...]:
    """The weights of a model that keep 8 bits, so that the mean of all keeps within a budget.

    What 4 bits for a weight cost is KL(float || only this weight rounded) in nats per token,
    measured on the floating-point graphs with the values that the device will compute with; what 8
    bits cost is that times the ratio of the squared errors. A weight that these graphs do not read
    as a matrix, so that nothing can be measured, keeps 8 bits.

    Args:
        bundle: the floating-point model.
        batches: the text to measure on; its first tokens serve.
        weights: of the graphs of fixed shapes.
        precision: name of a `edgedec.devices.npu.precision.Precision` with 4 bits.
        budget: most stored bits per weight, in the mean over all weights.
        pool: threads.
        scratch: a folder for values that are too large to keep in memory.
        progress: told what is being done, and which fraction of it is.

    Returns:
        Names of initializers, in the order of ``weights``.

    Raises:
        InputError: the budget is below what 4 bits for all weights take.
    """
    graphs = float_graphs(bundle, Settings())
    sites = find_sites(graphs)
    matrices = [site.matrix for some in sites.values() for site in some]
    candidates = _candidates(weights, matrices, precision)
    measured = [c for c in candidates if c.matrices and not c.fixed]

    def rounding(matrix: Matrix, bits: int) -> Array:
        return round_weight(matrix.read(), matrix.role, precision, bits)

    changes = [_only(candidate.matrices, rounding) for candidate in measured]
    losses = measure_losses(cut(graphs, sites), batches, changes, pool, scratch, progress)
    ratios = pool.map(lambda c: _ratio(c.matrices, rounding), measured)
    found = {c.name: pair for c, *pair in zip(measured, losses, ratios, strict=True)}
    units = [candidate.unit(*found.get(candidate.name, (0.0, 0.0))) for candidate in candidates]
    try:
        chosen = choose_bits(units, budget)
    except ValueError as error:
        raise InputError(f"--budget {budget:g}: {error}.") from error
    return tuple(c.name for c, bits in zip(candidates, chosen, strict=True) if bits == MANY)


def _candidates(
    weights: Sequence[Weight], matrices: Sequence[Matrix], precision: str
) -> list[_Candidate]:
    by_name: dict[str, list[Weight]] = {}
    for weight in weights:
        by_name.setdefault(weight.name, []).append(weight)
    found = []
    for name, some in by_name.items():
        sizes = [weight.rows * weight.columns for weight in some]
        eights: dict[int, tuple[str, ...]] = {FEW: (), MANY: (name,)}
        stored = {
            bits: sum(
                size * bits_per_weight(precision, weight, eight)
                for size, weight in zip(sizes, some, strict=True)
            )
            for bits, eight in eights.items()
        }
        same = {id(matrix): matrix for matrix in matrices if matrix.name == name}
        spec = get_precision(precision)
        fixed = all(weight_bits(spec, w) == weight_bits(spec, w, (name,)) for w in some)
        found.append(_Candidate(name, fixed, same, sum(sizes), stored))
    return found


def _only(matrices: Mapping[int, Matrix], rounding: Round) -> Change:
    """4 bits for these matrices, and nothing else."""

    def change(matrix: Matrix) -> Array | None:
        return rounding(matrix, FEW) if id(matrix) in matrices else None

    return change


def _ratio(matrices: Mapping[int, Matrix], rounding: Round) -> float:
    """The squared error of 8 bits by that of 4."""
    errors = dict.fromkeys((FEW, MANY), 0.0)
    for matrix in matrices.values():
        values = matrix.read()
        for bits in errors:
            difference = (rounding(matrix, bits) - values).astype(np.float64)
            errors[bits] += float(np.square(difference).sum())
    return errors[MANY] / errors[FEW] if errors[FEW] else 0.0
