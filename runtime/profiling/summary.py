"""Many values in a few: percentiles, mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edgedec.runtime.profiling.record import Summary


def summarize(values: Iterable[float]) -> Summary:
    """Median, percentiles, mean, standard deviation (n - 1) and range.

    Raises:
        ValueError: there is no value, or one that is not finite.
    """
    ordered = sorted(values)
    if not ordered or not all(map(math.isfinite, ordered)):
        raise ValueError("a summary needs finite values, and at least one")
    n, least, most = len(ordered), ordered[0], ordered[-1]
    # Rounding must not put the mean of equal values beside them.
    mean = min(max(math.fsum(value / n for value in ordered), least), most)
    return Summary(
        n=n,
        p50=_between(ordered, 50),
        p90=_between(ordered, 90),
        p99=_between(ordered, 99),
        mean=mean,
        sd=_deviation(ordered, mean),
        min=least,
        max=most,
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """Linear between samples: the first is at 0, the last at 100 (`numpy.percentile`'s default).

    Args:
        values: in any order, at least one.
        percent: 0 to 100.
    """
    return _between(sorted(values), percent)


def median(values: Iterable[float]) -> float:
    """The value in the middle, or halfway between the two there."""
    return percentile(values, 50)


def _between(ordered: Sequence[float], percent: float) -> float:
    place = (len(ordered) - 1) * percent / 100
    below = min(int(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return min(low + (high - low) * (place - below), high)


def _deviation(values: Sequence[float], mean: float) -> float | None:
    """The standard deviation of the population that the values come from; None for one value."""
    if len(values) < 2:
        return None
    # hypot neither overflows nor loses what is small.
    return math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)
