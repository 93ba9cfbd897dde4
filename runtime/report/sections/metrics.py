"""Every metric with every number of its summary, and what metrics mean."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.record import Summary
from edgedec.runtime.report.definitions import definition
from edgedec.runtime.report.figures import stat_of, unit_of
from edgedec.runtime.report.markup import Html, element
from edgedec.runtime.report.page import grid
from edgedec.runtime.report.rows import Shown
from edgedec.runtime.report.sections.section import Section, per_row

STATS = {
    "p50": "Median",
    "p90": "p90",
    "p99": "p99",
    "mean": "Mean",
    "sd": "SD",
    "min": "Least",
    "max": "Most",
}


def metrics(rows: Sequence[Shown]) -> Section:
    """A table for each row."""
    some = [one for one in rows if any(one.row.metrics.values())]
    return Section(
        "figures", "All figures", per_row(some, _table, of=rows, few=1), "no row was measured."
    )


def _table(one: Shown) -> list[Html]:
    names = ("Metric", "Unit", *STATS.values(), "n")
    lines = [
        _line(one.index, metric, summary)
        for metric, summary in one.row.metrics.items()
        if summary is not None
    ]
    caption = f"{one.name}: percentiles over requests or processes."
    return [grid(caption, names, lines, "metrics")]


def _line(row: int, metric: str, summary: Summary) -> Html:
    return element(
        "tr",
        element("th", element("code", metric), scope="row"),
        element("td", unit_of(metric), class_="muted"),
        *(element("td", stat_of(summary, row, metric, stat)) for stat in STATS),
        element("td", f"{summary.n:,}"),
    )


def terms(rows: Sequence[Shown]) -> Section:
    """What the metrics of this page mean, in a line each."""
    names = dict.fromkeys(metric for one in rows for metric in one.row.metrics)
    entries = [
        element("div", element("dt", element("code", name)), element("dd", words))
        for name in names
        if (words := definition(name)) is not None
    ]
    parts = [element("dl", *entries, class_="terms")] if entries else []
    return Section("terms", "What the metrics mean", parts, "there are none.")
