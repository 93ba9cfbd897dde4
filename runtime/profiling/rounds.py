"""What a row measured in each of its rounds, for comparing it with another row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgedec.runtime.profiling.metrics import tpot_ms, ttft_ms
from edgedec.runtime.profiling.record import Row, Sample, Turn
from edgedec.runtime.profiling.summary import median

TIMES: dict[str, Callable[[Sample], float | None]] = {
    "ttft_ms": ttft_ms,
    "tpot_ms": tpot_ms,
    "e2e_ms": lambda sample: sample.e2e_ms,
}
MEMORY = "peak_rss_mb"
COMPARED = (*TIMES, MEMORY)
"""Metrics that are compared; of all of them, less is better."""


def by_round(row: Row, metric: str) -> dict[int, list[float]]:
    """Round -> values of one of the `COMPARED` metrics, rounds without any left out."""
    found: dict[int, list[float]] = {}
    for turn in row.turns:
        values = [value for value in _values(turn, metric) if value is not None and value > 0]
        if values:
            found.setdefault(turn.round, []).extend(values)
    return found


def over_rounds(values: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Round -> median of its values."""
    return {number: median(found) for number, found in values.items()}


def _values(turn: Turn, metric: str) -> list[float | None]:
    if metric == MEMORY:
        return [None if turn.memory is None else turn.memory.peak_rss_mb]
    return [TIMES[metric](sample) for sample in turn.samples]
