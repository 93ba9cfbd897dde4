"""Bars as lists of HTML: as wide as their page, with every figure as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgedec.runtime.report.figures import number
from edgedec.runtime.report.markup import Html, element

COLOURS = 7
"""How many there are in the page's style: ``--c0`` and so on."""


@dataclass(frozen=True)
class Segment:
    """A part of a bar.

    Attributes:
        name: what it is.
        value: its length, in the unit of its chart.
        colour: number; any.
        metric: name for programs.
    """

    name: str
    value: float
    colour: int = 0
    metric: str | None = None


@dataclass(frozen=True)
class Bar:
    """A line of a chart.

    Attributes:
        name: beside the bar.
        segments: one after another; none where nothing was measured.
        shown: text after the bar: figures with units.
        row: of the profile.
        start: where the bar begins.
        mark: a place beside it that means something too.
        inner: whether it is a part of the bar above.
    """

    name: str
    segments: Sequence[Segment]
    shown: str
    row: int
    start: float = 0.0
    mark: Segment | None = None
    inner: bool = False


def chart(
    bars: Sequence[Bar],
    caption: str,
    unit: str,
    *,
    key: Html | None = None,
    most: float | None = None,
) -> Html:
    """Bars with one scale, which begins at 0.

    Args:
        bars: from top to bottom.
        caption: says what they show.
        unit: of the values.
        key: what the colours mean.
        most: where the scale ends; None for the end of the longest bar.
    """
    ends = [bar.start + sum(segment.value for segment in bar.segments) for bar in bars]
    marks = [bar.mark.value for bar in bars if bar.mark is not None]
    scale = most if most is not None else max([*ends, *marks], default=0.0)
    lines = [_line(bar, scale, unit) for bar in bars]
    return element(
        "figure",
        element("figcaption", caption),
        *([] if key is None else [key]),
        element("ul", *lines, class_="bars", data_scale=scale, data_unit=unit),
    )


def _line(bar: Bar, scale: float, unit: str) -> Html:
    parts, at = [], bar.start
    for segment in bar.segments:
        parts.append(_segment(segment, at, scale, unit))
        at += segment.value
    if bar.mark is not None:
        parts.append(_mark(bar.mark, scale, unit))
    return element(
        "li",
        element("span", bar.name, class_="name"),
        element("span", *parts, class_="track"),
        element("span", bar.shown, class_="shown"),
        class_="inner" if bar.inner else None,
        data_row=bar.row,
    )


def _segment(segment: Segment, at: float, scale: float, unit: str) -> Html:
    return element(
        "span",
        class_="bar",
        style=f"left:{_percent(at, scale)};width:{_percent(segment.value, scale)};"
        f"background:{colour(segment.colour)}",
        title=f"{segment.name}: {number(segment.value)} {unit}".strip(),
        data_value=segment.value,
        data_metric=segment.metric,
    )


def _mark(mark: Segment, scale: float, unit: str) -> Html:
    return element(
        "span",
        class_="mark",
        style=f"left:{_percent(mark.value, scale)}",
        title=f"{mark.name}: {number(mark.value)} {unit}".strip(),
        data_value=mark.value,
        data_metric=mark.metric,
    )


def legend(names: Iterable[tuple[str, int]], *, mark: str | None = None) -> Html:
    """What the colours mean.

    Args:
        names: with the numbers of their colours.
        mark: what a mark means.
    """
    entries = [
        element("li", element("span", class_="key", style=f"background:{colour(number_)}"), name)
        for name, number_ in names
    ]
    if mark is not None:
        entries.append(element("li", element("span", class_="key line"), mark))
    return element("ul", *entries, class_="legend")


def colour(number_: int) -> str:
    """A colour of the page; they repeat."""
    return f"var(--c{number_ % COLOURS})"


def _percent(value: float, scale: float) -> str:
    part = value / scale if scale > 0 else 0.0
    return f"{100 * part if math.isfinite(part) else 0.0:.4f}%"
