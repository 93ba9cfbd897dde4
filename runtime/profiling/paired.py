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
"""With which each end of an interval holds."""
MOST_ROUNDS = 200
"""More are not worth asking for."""


@dataclass(frozen=True)
class Ratio:
    """Of one row to another.

    Attributes:
        values: a ratio for each round that both have.
        median: of these.
        low, high: an interval for the median of all rounds there could be,
        coverage: and the probability that such an interval contains it; of verdicts, which need
            one end only, see `confidence`.
    """

    values: tuple[float, ...]
    median: float
    low: float
    high: float
    coverage: float

    @property
    def confidence(self) -> float:
        """The probability that "above `low`" holds, and as much that "below `high`" does."""
        return (1 + self.coverage) / 2

    @property
    def trusted(self) -> bool:
        """Whether each of these is wrong at most one time in twenty: with five rounds or more."""
        return self.confidence >= CONFIDENCE

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
    binomial (n, 1/2). k is the largest with which each end holds with `CONFIDENCE`, as a verdict
    rests on one end only; where none does (fewer than five values), and up to seven, the interval
    has all values.

    Returns:
        Its ends, and the probability that the median lies between both, exact for continuous
        distributions: 0.9375 of five values, 0.9297 of eight, 0 of one.
    """
    ordered, n = sorted(values), len(values)
    outside, k = 1, 1  # of 2^n equally probable cases, those with fewer than k values below
    while (further := outside + math.comb(n, k)) / 2**n <= 1 - CONFIDENCE:
        outside, k = further, k + 1
    return ordered[k - 1], ordered[n - k], 1 - 2 * outside / 2**n


def rounds_needed(ratio: Ratio, limit: float) -> int | None:
    """How many rounds would likely (four times in five) tell this ratio from a limit.

    The interval of a median of n values that are normal, in logarithms, reaches
    1.645 sqrt(pi / 2) sd / sqrt(n) to both sides; 0.84 more for the median found not being the
    true one.

    Returns:
        None if it would take more than `MOST_ROUNDS`: too much noise for a ratio that close to
        the limit.
    """
    few = math.ceil(-math.log2(1 - CONFIDENCE))
    if len(ratio.values) < 2:
        return few
    logs = [math.log(value) for value in ratio.values]
    mean = math.fsum(logs) / len(logs)
    variance = math.fsum((value - mean) ** 2 for value in logs) / (len(logs) - 1)
    distance = math.log(ratio.median / limit)
    wanted = (1.645 + 0.84) ** 2 * math.pi / 2 * variance
    if wanted > MOST_ROUNDS * distance**2:
        return None
    more = 0 if not ratio.trusted else len(ratio.values) + 1
    return max(few, more, math.ceil(wanted / distance**2) if wanted else 0)
