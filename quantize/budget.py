"""Which matrices get how many bits, so that their mean stays within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Unit:
    """Weights that get the same number of bits.

    Attributes:
        weights: how many.
        bits_per_weight: bits of codes -> what a weight takes with levels, scales and all.
        loss: the same bits -> what they cost; losses of units add up.
    """

    weights: int
    bits_per_weight: Mapping[int, float]
    loss: Mapping[int, float]


def choose_bits(units: Sequence[Unit], budget: float) -> list[int]:
    """Bits for each unit with a small sum of losses, within a budget.

    Each unit starts with what takes the least. Steps along the lower convex hull of its losses are
    taken in the order of what they gain per bit, which is optimal for every budget that they use up
    (Everett 1963); what is left goes to the largest gains that fit. The result is at most one step
    of one unit worse than the best, and not worse than equal bits for all, where these fit.

    Args:
        units: what to choose for.
        budget: most bits per weight, in the mean over all weights.

    Returns:
        For each unit a key of its ``loss``.

    Raises:
        ValueError: numbers that make no sense, or a budget below what the smallest choice takes.
    """
    if not units:
        return []
    options = [_options(unit) for unit in units]
    weights = sum(unit.weights for unit in units)

    def mean(choice: Choice) -> float:
        return math.fsum(option.stored for option in choice) / weights

    def fits(choice: Choice) -> bool:
        return mean(choice) <= budget

    smallest = [min(some, key=lambda o: (o.stored, o.loss)) for some in options]
    if not fits(smallest):
        raise ValueError(
            f"{budget:g} bits per weight are too few: the smallest choice has {mean(smallest):.4f}"
        )
    starts = [_climb(smallest, options, fits), *filter(fits, _equal(options))]
    best = min((_fill(start, options, fits) for start in starts), key=_loss)
    return [option.bits for option in best]


@dataclass(frozen=True)
class _Option:
    """What a unit can be: bits per code, bits of all its weights, loss."""

    bits: int
    stored: float
    loss: float


Choice = Sequence[_Option]


def _options(unit: Unit) -> list[_Option]:
    if unit.weights < 1 or not unit.loss or unit.loss.keys() != unit.bits_per_weight.keys():
        raise ValueError("a unit needs weights, and a size and a loss for the same numbers of bits")
    options = [
        _Option(bits, unit.weights * unit.bits_per_weight[bits], unit.loss[bits])
        for bits in sorted(unit.loss)
    ]
    if not all(math.isfinite(o.stored) and math.isfinite(o.loss) for o in options):
        raise ValueError("sizes and losses must be finite")
    return options


def _loss(choice: Choice) -> float:
    return math.fsum(option.loss for option in choice)


def _equal(options: Sequence[Sequence[_Option]]) -> list[list[_Option]]:
    """The choices with the same bits for all units."""
    by_bits = [{option.bits: option for option in some} for some in options]
    common = set(by_bits[0]).intersection(*by_bits[1:])
    return [[some[bits] for some in by_bits] for bits in sorted(common)]


def _climb(
    start: Choice, options: Sequence[Sequence[_Option]], fits: Callable[[Choice], bool]
) -> Choice:
    """Take the steps of all hulls that fit, the best per bit first."""
    steps = [
        (-_slope(low, high), unit, low, high)
        for unit, some in enumerate(options)
        for low, high in pairwise(_hull(start[unit], some))
    ]
    choice = list(start)
    # a stable sort: equal slopes of a unit stay in their order
    for _, unit, low, high in sorted(steps, key=lambda step: step[0]):
        # not so where a step below it did not fit
        if choice[unit] is low:
            choice[unit] = high
            if not fits(choice):
                choice[unit] = low
    return choice


def _hull(first: _Option, options: Sequence[_Option]) -> list[_Option]:
    """From the smallest option on, each time the steepest descent: slopes never get steeper."""
    hull = [first]
    while better := [o for o in options if o.loss < hull[-1].loss]:
        last = hull[-1]
        # of equal slopes the first step is the shortest
        hull.append(max(better, key=lambda o: (_slope(last, o), -o.stored)))
    return hull


def _slope(low: _Option, high: _Option) -> float:
    """Loss that a step saves per bit; it may need no more bits, but not fewer."""
    extra = high.stored - low.stored
    return (low.loss - high.loss) / extra if extra > 0 else math.inf


def _fill(
    start: Choice, options: Sequence[Sequence[_Option]], fits: Callable[[Choice], bool]
) -> Choice:
    """Make the change of one unit that gains most and fits, as long as there is one."""
    choice = list(start)
    while True:
        changes = [
            (option.loss - now.loss, unit, option)
            for unit, (now, some) in enumerate(zip(choice, options, strict=True))
            for option in some
            if option.loss < now.loss
        ]
        for _, unit, option in sorted(changes, key=lambda change: change[0]):
            before, choice[unit] = choice[unit], option
            if fits(choice):
                break
            choice[unit] = before
        else:
            return choice
