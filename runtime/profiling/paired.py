"""Two rows beside each other, round by round: ratios, and how far noise lets them be trusted.

Requests of one process resemble each other more than those of another process, so a round counts
once: by its median. What is said of the rounds rests on order statistics, which assume nothing
about how times are distributed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgedec.runtime.profiling.summary import median

CONFIDENCE = 0.95
MOST_ROUNDS = 200
"""More are not worth asking for."""


@dataclass(frozen=True)
class Ratio:
    """Of one row to another.

    Attributes:
        values: a ratio for each round that both have.
        median: of these.
        low, high: an interval for the median of all rounds there could be,
        coverage: and the probability that such an interval contains it.
    """

    values: tuple[float, ...]
    median: float
    low: float
    high: float
    coverage: float

    @property
    def trusted(self) -> bool:
        """Whether "above `low`" and "below `high`" are each wrong at most one time in twenty."""
        return (1 + self.coverage) / 2 >= CONFIDENCE

    def __truediv__(self, other: Ratio) -> Ratio:
        """Round by round; both must come from the same rounds."""
        return ratio_of([a / b for a, b in zip(self.values, other.values, strict=True)])


def ratio_of(values: Sequence[float]) -> Ratio:
    """Judge ratios, one for each round; there must be one at least."""
    return Ratio(tuple(values), median(values), *interval(values))


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Ratio | None:
    """Second to first, by the rounds that both have; None if there are none."""
    shared = sorted(first.keys() & second.keys())
    return ratio_of([second[number] / first[number] for number in shared]) if shared else None


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """For the median of what the values were drawn from, whatever its distribution.

    From the k-th smallest to the k-th largest value; the number of values below the median is
    binomial (n, 1/2). k is the largest that reaches `CONFIDENCE`; where none does (fewer than six
    values), the interval has all values.

    Returns:
        Its ends and its coverage, exact for continuous distributions: 0.9375 of five values, 0 of
        one.
    """
    ordered, n = sorted(values), len(values)
    outside, k = 1, 1  # of 2^n equally probable cases, those with fewer than k values below
    coverage = 1 - 2 * outside / 2**n
    while True:
        further = outside + math.comb(n, k)
        wider = 1 - 2 * further / 2**n
        if wider < CONFIDENCE:
            return ordered[k - 1], ordered[n - k], coverage
        outside, coverage, k = further, wider, k + 1


def rounds_needed(ratio: Ratio, limit: float) -> int | None:
    """How many rounds would likely (four times in five) tell this ratio from a limit.

    The interval of a median of n values that are normal, in logarithms, reaches
    1.96 sqrt(pi / 2) sd / sqrt(n) to both sides; 0.84 more for the median found not being the
    true one.

    Returns:
        None if it would take more than `MOST_ROUNDS`: the ratio is too close to the limit.
    """
    few = math.ceil(-math.log2(1 - CONFIDENCE))
    if len(ratio.values) < 2:
        return few
    logs = [math.log(value) for value in ratio.values]
    mean = math.fsum(logs) / len(logs)
    variance = math.fsum((value - mean) ** 2 for value in logs) / (len(logs) - 1)
    distance = math.log(ratio.median / limit)
    wanted = (1.96 + 0.84) ** 2 * math.pi / 2 * variance
    if wanted > MOST_ROUNDS * distance**2:
        return None
    more = 0 if not ratio.trusted else len(ratio.values) + 1
    return max(few, more, math.ceil(wanted / distance**2) if wanted else 0)
