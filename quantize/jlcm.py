"""Codebooks, row scales and codes learned together for the smallest error of outputs.

After JLCM (arXiv 2309.17361): groups of rows with a codebook each, levels and codes fitted jointly
on what a layer computes from calibration inputs. With damped second moments H of the inputs, the
objective of a matrix W is tr((W' - W) H (W' - W)^T). From a k-means start, codes are chosen with
error feedback; then rounds of least-squares levels, least-squares row scales, rounding levels to
the integers that kernels hold, and coordinate descent over codes. The best state of each group is
kept, and groups share nothing but H, so no group ends above its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgedec.quantize.baselines.kmeans import check_matrix
from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.fitting.damping import Curvature, curvature, damped
from edgedec.quantize.fitting.descent import descend
from edgedec.quantize.fitting.fit import Doubles, Fit
from edgedec.quantize.fitting.joint import learn_jointly
from edgedec.quantize.fitting.refit import refit_levels, refit_scales, round_levels
from edgedec.quantize.fitting.start import feed_back, start
from edgedec.quantize.fitting.target import corrected
from edgedec.quantize.grouping import Groups, by_distribution, contiguous
from edgedec.quantize.method import Array, Quantized, Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.size import ROW_ORDER_BITS, stored_bits
from edgedec.quantize.statistics import Statistics

MOST = 1 << 22
"""Weights fitted at a time: matrices of one call are stacked up to here."""
SETTLED = 3e-3
"""Rounds end when no group's objective falls by more than this part of it in one."""


def jlcm(
    weights: Sequence[Array],
    statistics: Statistics,
    bits: int,
    settings: Settings,
    pool: Pool,
) -> list[Quantized]:
    """Quantize matrices ``[N, K]`` that have the same inputs.

    Where the inputs have drifted, the target is what makes up for that (`target.corrected`).

    Args:
        weights: float32 matrices, with the same K.
        statistics: of their inputs.
        bits: 2, 3 or 4.
        settings: of `Settings`, all but what only other methods use.
        pool: threads; their number does not change the result.

    Raises:
        ValueError: other bits; a matrix that is empty, holds NaN, infinity or weights above 1e30;
            statistics of other shape or that are not finite.
    """
    if bits not in (2, 3, 4):
        raise ValueError(f"codebooks have codes of 2, 3 or 4 bits, not {bits}")
    if settings.groups < 1:
        raise ValueError(f"{settings.groups} codebooks are too few")
    hessian = damped(statistics.inputs, settings.damping)
    for weight in weights:
        check_matrix(weight)
        if weight.shape[1] != len(hessian):
            raise ValueError(
                f"a matrix of shape {list(weight.shape)} does not take {len(hessian)} inputs"
            )
    if statistics.drift is not None:
        weights = corrected(weights, statistics.drift, hessian, pool)
    bend = curvature(hessian)
    results: list[Quantized] = []
    for stack in _stacks(weights):
        results += _quantize(stack, bend, bits, settings, pool)
    return results


def _stacks(weights: Sequence[Array]) -> Iterator[list[Array]]:
    """Runs of matrices with about `MOST` weights together, at least one."""
    stack: list[Array] = []
    for weight in weights:
        if stack and sum(w.size for w in stack) + weight.size > MOST:
            yield stack
            stack = []
        stack.append(weight)
    if stack:
        yield stack


def _quantize(
    stack: list[Array], bend: Curvature, bits: int, settings: Settings, pool: Pool
) -> list[Quantized]:
    groups = _group(stack, bend, bits, settings, pool)
    fit = _start(stack, groups, bend, bits, pool)
    best = _Best(fit, pool)
    feed_back(fit, pool)
    best.offer(fit, fit.objective(pool))
    _refine(fit, best, settings, pool)
    if settings.joint:
        fit = _start(stack, groups, bend, bits, pool)
        learn_jointly(fit, pool)
        _refine(fit, best, settings, pool)
    return _results(best, groups, bits)


def _refine(fit: Fit, best: _Best, settings: Settings, pool: Pool) -> None:
    """Rounds of levels, scales and codes; whatever state is better than the best becomes it."""
    last = fit.objective(pool)
    for _ in range(settings.rounds):
        mass = refit_levels(fit, pool)
        refit_scales(fit, pool)
        round_levels(fit, mass, pool)
        tables = fit.tables
        for _ in range(settings.sweeps):
            descend(fit.pull, tables, fit.curvature.coupling, pool, fit.codes, fit.values)
        fit.measure(pool)
        refit_scales(fit, pool)
        now = fit.objective(pool)
        best.offer(fit, now)
        # not against the best: another start's result says nothing about how far this one falls
        if (now >= last * (1 - SETTLED)).all():
            break
        last = now


def _group(
    stack: list[Array], bend: Curvature, bits: int, settings: Settings, pool: Pool
) -> list[Groups]:
    plain = [contiguous(len(weight), settings.groups) for weight in stack]
    if settings.grouping == "contiguous":
        return plain
    alike = [by_distribution(weight, settings.groups) for weight in stack]
    if settings.grouping == "distribution":
        return alike
    # A bit per weight makes the objective about 4 times smaller; an order has to be worth its own.
    price = 4.0 ** (ROW_ORDER_BITS / stack[0].shape[1])
    losses = [
        _by_matrix(_start(stack, choice, bend, bits, pool).objective(pool), choice)
        for choice in (plain, alike)
    ]
    return [
        other if other.order is not None and gain * price < loss else own
        for own, other, loss, gain in zip(plain, alike, *losses, strict=True)
    ]


def _start(stack: list[Array], groups: list[Groups], bend: Curvature, bits: int, pool: Pool) -> Fit:
    rows = np.concatenate(
        [w if g.order is None else w[g.order] for w, g in zip(stack, groups, strict=True)]
    )
    counts = np.concatenate([np.diff(g.starts) for g in groups])
    return start(rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.intp), bend, bits, pool)


def _by_matrix(objective: Doubles, groups: list[Groups]) -> Doubles:
    """Sums ``[matrices]`` of what each group has."""
    first = np.cumsum([0, *(len(g.starts) - 1 for g in groups[:-1])])
    return np.add.reduceat(objective, first)


class _Best:
    """The best state of each group so far."""

    def __init__(self, fit: Fit, pool: Pool) -> None:
        self.starts = fit.starts
        self.order = fit.curvature.order
        self.codes, self.levels, self.scale = fit.codes.copy(), fit.levels.copy(), fit.scale.copy()
        self.empty = ~fit.used
        self.energy = fit.energy(pool)
        self.objective = fit.objective(pool)
        self.trace = [self.objective]

    def offer(self, fit: Fit, now: Doubles) -> None:
        """Keep the groups that are better, ``now`` being their objectives."""
        better = now < self.objective
        for group in np.flatnonzero(better):
            part = slice(self.starts[group], self.starts[group + 1])
            self.codes[:, part], self.scale[part] = fit.codes[:, part], fit.scale[part]
            self.levels[group] = fit.levels[group]
        self.objective = np.where(better, now, self.objective)
        self.trace.append(self.objective)


def _results(best: _Best, groups: list[Groups], bits: int) -> list[Quantized]:
    results = []
    first_group = 0
    codes = np.empty(best.codes.shape[::-1], np.uint8)
    codes[:, best.order] = best.codes.T
    scale = np.where(best.empty, 0, best.scale).astype(np.float32)
    for own in groups:
        count = len(own.starts) - 1
        numbers = slice(first_group, first_group + count)
        rows = slice(best.starts[first_group], best.starts[first_group + count])
        group_of_row = np.repeat(np.arange(count, dtype=np.uint16), np.diff(own.starts))
        tensor = CodebookTensor(
            codes[rows].copy(), best.levels[numbers], scale[rows], group_of_row, bits, own.order
        )
        whole = best.energy[numbers].sum()
        trace = tuple(float(x[numbers].sum() / whole) if whole > 0 else 0.0 for x in best.trace)
        results.append(Quantized(tensor, None, stored_bits(tensor), trace))
        first_group += count
    return results
