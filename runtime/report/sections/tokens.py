"""When tokens came, and how regularly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from edgedec.runtime.profiling.metrics import one_by_one
from edgedec.runtime.profiling.record import Sample
from edgedec.runtime.profiling.summary import median, percentile
from edgedec.runtime.report.axes import Axis, Point, Series, from_zero, plot
from edgedec.runtime.report.figures import number
from edgedec.runtime.report.markup import Html
from edgedec.runtime.report.rows import Shown, groups, measured, names
from edgedec.runtime.report.sections.section import Section, folded, per_row

Item = TypeVar("Item")

MOST_LINES = 30
"""Requests of a row that are drawn one by one."""
MOST_POINTS = 200
"""Of a line."""
MOST_DOTS = 1500
USUAL = 95
"""Per cent of the times between tokens that are in the picture at least."""


def tokens(rows: Sequence[Shown]) -> Section:
    """A timeline of all rows, then the time between tokens of each."""
    some = [one for one in measured(rows) if any(sample.token_ms for sample in one.samples)]
    parts = []
    for position, group in enumerate(groups(some)):
        drawn = [_timeline(group)]
        several = len(some) > len(group)
        name = f"Rows {group[0].index + 1} to {group[-1].index + 1}"
        parts += [folded(name, drawn, unfolded=position == 0)] if several else drawn
    parts += per_row(some, _intervals, of=rows)
    return Section("tokens", "Token by token", parts, "no request told when its tokens came.")


def _timeline(group: Sequence[Shown]) -> Html:
    series, told, ends, most = [], [], [0.0], [1.0]
    for one in group:
        samples = [sample for sample in one.samples if sample.token_ms]
        faint = [_points(sample.token_ms) for sample in _some(samples, MOST_LINES)]
        middle = _usual(one, samples)
        series.append(Series(one.name, one.colour, [_points(middle)], faint))
        ends += [*(line[-1][0] for line in faint), middle[-1]]
        most += [*(line[-1][1] for line in faint), len(middle)]
        told.append(
            f"{one.name}: first token after {number(middle[0])} ms, "
            f"token {len(middle):,} after {number(middle[-1])} ms"
        )
    caption = (
        "When each token came. Thin: single requests; bold: medians, or, where requests have "
        "different lengths, the one in the middle."
    )
    if any(one_by_one(sample) for one in group for sample in one.samples):
        caption += " Where a batch's inputs are taken one by one: tokens of all inputs, in turn."
    x, y = from_zero("ms since the request", ends), Axis("tokens", 0.0, max(most))
    key = names(group)
    return plot(series, x, y, caption, f"Token timeline. {'; '.join(told)}.", key=key)


def _usual(one: Shown, samples: Sequence[Sample]) -> Sequence[float]:
    """Times of all tokens; medians over different requests could run backwards."""
    if len({len(sample.token_ms) for sample in samples}) == 1 or one.middle is None:
        return _medians([sample.token_ms for sample in samples])
    return one.middle.token_ms or samples[0].token_ms


def _intervals(one: Shown) -> list[Html]:
    found = [_gaps(sample) for sample in one.samples if len(sample.token_ms) > 1]
    if not found:
        return []
    dots = [(place + 2.0, value) for gaps in found for place, value in enumerate(gaps)]
    middle = _medians(found)
    line = [(place + 2.0, value) for place, value in enumerate(middle)]
    shown = _some(dots, MOST_DOTS)
    # A single pause of the machine must not flatten all the others.
    usual = percentile((value for _, value in dots), USUAL)
    most = min(max(value for _, value in dots), 1.25 * max(usual, *middle))
    above = sum(value > most for _, value in dots)
    inside = [(place, value) for place, value in shown if value <= most]
    caption = "Time from each token to the next. Line: median; dots: single requests."
    if above:
        caption += f" {above:,} of {len(dots):,} lie above the picture."
    told = f"Time between tokens: median {number(median(value for _, value in dots))} ms."
    x = Axis("token", 1.0, max(place for place, _ in dots))
    y = from_zero("ms", [most])
    return [
        plot([Series(one.name, one.colour, [_thinned(line)], dots=inside)], x, y, caption, told)
    ]


def _gaps(sample: Sample) -> list[float]:
    times = sample.token_ms
    return [after - before for before, after in pairwise(times)]


def _medians(lines: Sequence[Sequence[float]]) -> list[float]:
    """By place, as far as half of the lines reach."""
    lengths = sorted(map(len, lines), reverse=True)
    reach = lengths[(len(lengths) - 1) // 2]
    return [median(line[place] for line in lines if len(line) > place) for place in range(reach)]


def _points(times: Sequence[float]) -> list[Point]:
    return _thinned([(time, place + 1.0) for place, time in enumerate(times)])


def _thinned(points: list[Point]) -> list[Point]:
    """A line with fewer points, the last of them included."""
    if len(points) <= MOST_POINTS:
        return points
    every = -(-len(points) // MOST_POINTS)
    return [*points[:-1:every], points[-1]]


def _some(items: Sequence[Item], most: int) -> list[Item]:
    """Of many, as many as wanted, from everywhere."""
    every = max(1, -(-len(items) // most))
    return list(items[::every])
