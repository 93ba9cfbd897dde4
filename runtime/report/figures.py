"""Numbers for people, each with its exact value beside it for programs."""

from __future__ import annotations

from edgedec.runtime.profiling.metrics import COMPONENT, METRICS
from edgedec.runtime.profiling.record import Summary
from edgedec.runtime.report.markup import Html, element

NOTHING = "\N{EN DASH}"
"""Where a figure does not exist."""


def number(value: float, like: float | None = None) -> str:
    """Three digits, more only in front of the point: ``0.0123``, ``20.5``, ``4,711``.

    Args:
        value: to be shown.
        like: another number, of which it gets as many places: a deviation those of its median.
    """
    places = _places(value if like is None else like)
    return f"{value:.2e}" if places is None else f"{value:,.{places}f}"


def _places(value: float) -> int | None:
    """After the point; None for what is too small for them."""
    size = abs(value)
    if size >= 100 or value == 0:
        return 0
    return next((places for places in range(1, 7) if size >= 10 ** (2 - places)), None)


def figure(
    value: float,
    row: int | None,
    metric: str,
    stat: str | None = None,
    *,
    like: float | None = None,
) -> Html:
    """A number as text, with what it is of.

    Args:
        value: to be shown.
        row: of the profile; None if it is of no row.
        metric: its name.
        stat: which number of a `Summary`; None of other figures.
        like: see `number`.
    """
    text = number(value, like)
    return element("data", text, value=value, data_row=row, data_metric=metric, data_stat=stat)


def stat_of(summary: Summary, row: int, metric: str, stat: str) -> Html:
    """One number of a summary; a dash for a deviation that a single sample does not have."""
    value = getattr(summary, stat)
    if value is None:
        return Html(NOTHING)
    return figure(value, row, metric, stat, like=summary.p50 if stat == "sd" else None)


def unit_of(metric: str) -> str:
    """The unit of a metric; empty for plain numbers and for metrics of a newer edgedec."""
    known = METRICS.get(metric)
    if known is None and metric.startswith("run_ms["):
        known = METRICS[COMPONENT]
    return "" if known is None else known.unit


def counted(count: int, noun: str) -> str:
    """``1 round``, ``1,200 rounds``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def megabytes(size: int) -> str:
    """Bytes for people, in units of 10^6: ``16.5 MB``."""
    return f"{number(size / 1e6)} MB"
