"""How times are distributed over requests."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.rounds import by_round
from edgedec.runtime.report.axes import Axis, Point, Series, around, plot
from edgedec.runtime.report.figures import number
from edgedec.runtime.report.markup import Html
from edgedec.runtime.report.rows import Shown, groups, measured, names
from edgedec.runtime.report.sections.section import Section, folded

METRICS = {"e2e_ms": "end to end", "tpot_ms": "per token after the first (TPOT)"}
MOST_STEPS = 400


def distribution(rows: Sequence[Shown]) -> Section:
    """Which part of the requests took no longer than that."""
    some = [one for one in measured(rows) if len(one.samples) > 1]
    parts = []
    for position, group in enumerate(groups(some)):
        drawn = [one for metric in METRICS for one in _picture(group, metric)]
        several = len(some) > len(group)
        name = f"Rows {group[0].index + 1} to {group[-1].index + 1}"
        parts += [folded(name, drawn, unfolded=position == 0)] if several else drawn
    return Section("distribution", "Distribution", parts, "one request has none: -r asks for more.")


def _picture(group: Sequence[Shown], metric: str) -> list[Html]:
    found: list[tuple[Shown, list[float]]] = []
    for one in group:
        values = sorted(v for values in by_round(one.row, metric).values() for v in values)
        if values:
            found.append((one, values))
    if not found:
        return []
    series = [Series(one.name, one.colour, [_steps(values)]) for one, values in found]
    told = "; ".join(
        f"{one.name}: from {number(values[0])} to {number(values[-1])} ms" for one, values in found
    )
    words = METRICS[metric]
    caption = f"Times {words}: which part of the requests took no longer."
    x = around("ms", [value for _, values in found for value in values])
    y = Axis("% of requests", 0.0, 100.0)
    told = f"Distribution of times {words}. {told}."
    return [plot(series, x, y, caption, told, key=names(group))]


def _steps(values: Sequence[float]) -> list[Point]:
    """The empirical distribution function, in per cent."""
    n = len(values)
    every = -(-n // MOST_STEPS)
    points: list[Point] = [(values[0], 0.0)]
    for place in range(every - 1, n, every):
        points += [(values[place], points[-1][1]), (values[place], 100 * (place + 1) / n)]
    return [*points, (values[-1], points[-1][1]), (values[-1], 100.0)]
