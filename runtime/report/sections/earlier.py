"""This profile against an earlier one: what `--compare` says."""

from __future__ import annotations

from edgedec.runtime.profiling.comparison import Change, Comparison
from edgedec.runtime.report.beside import coverage
from edgedec.runtime.report.change import SLOWER, in_words, remarks, verdict
from edgedec.runtime.report.figures import number, unit_of
from edgedec.runtime.report.markup import Html, element
from edgedec.runtime.report.page import grid
from edgedec.runtime.report.rows import Shown
from edgedec.runtime.report.sections.section import Section

VERDICTS = {"slower": "bad", "faster": "good", "undecided": "warn", "not slower": ""}
HEAD = ("Figure", "Verdict", "Ratio, new / old", "Old", "New")
"""The verdict comes first: on a telephone, the others are a scroll away."""


def earlier(comparison: Comparison | None, rows: list[Shown]) -> Section:
    """A verdict for every row and metric that both profiles have."""
    return Section(
        "earlier",
        "Against an earlier profile",
        [] if comparison is None else _parts(comparison, rows),
    )


def _parts(comparison: Comparison, rows: list[Shown]) -> list[Html]:
    names = {one.row.configuration: one.name for one in rows}
    parts = [element("p", element("strong", verdict(comparison)))]
    lines = [
        _line(names.get(row.new, row.new.bundle), change) for row, change in comparison.changes
    ]
    if lines:
        ends = coverage([change.ratio for _, change in comparison.changes])
        caption = (
            "Of the rounds that both profiles have, paired by number. Ratios are medians over "
            f"rounds, with {ends}."
        )
        parts.append(element("h3", f"Ratios to the old profile: {SLOWER}"))
        parts.append(grid(caption, HEAD, lines, "earlier"))
    notes = [element("li", note) for note in remarks(comparison)]
    if notes:
        parts.append(element("div", element("ul", *notes), class_="note", role="note"))
    return parts


def _line(name: str, change: Change) -> Html:
    ratio, unit = change.ratio, unit_of(change.metric)
    return element(
        "tr",
        element("th", f"{name} ", element("span", change.metric, class_="of"), scope="row"),
        element("td", in_words(change), class_=f"text {VERDICTS[change.verdict]}".strip()),
        element(
            "td",
            element("data", f"{ratio.median:.3f}", value=ratio.median),
            f" ({ratio.low:.3f}\N{EN DASH}{ratio.high:.3f})",
        ),
        element("td", element("data", number(change.old), value=change.old), f" {unit}"),
        element("td", element("data", number(change.new), value=change.new), f" {unit}"),
    )
