"""Plots with axes: lines in SVG that stretch with the page, their ticks as text that does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgedec.runtime.report.bars import colour
from edgedec.runtime.report.markup import Html, element

SIDE = 1000
"""Of the square that stretches to the picture."""
LOGARITHMIC = 20
"""Values that differ by more than this factor are shown on a logarithmic axis."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """What belongs to one entry of a legend.

    Attributes:
        name: for readers of the picture's text.
        colour: number.
        lines: drawn boldly, each from point to point.
        faint: drawn thinly, behind these.
        dots: single points.
    """

    name: str
    colour: int
    lines: Sequence[Sequence[Point]] = ()
    faint: Sequence[Sequence[Point]] = ()
    dots: Sequence[Point] = ()


@dataclass(frozen=True)
class Axis:
    """One direction of a plot.

    Attributes:
        label: with a unit.
        low, high: its ends.
        logarithmic: whether equal lengths are equal factors.
    """

    label: str
    low: float
    high: float
    logarithmic: bool = False

    def part(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values, few enough for a telephone."""
        if self.logarithmic:
            return _thinned(_decades(self.low, self.high), most)
        step = _step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [count * step for count in range(first, last + 1)]


def from_zero(label: str, values: Sequence[float]) -> Axis:
    """An axis from 0 to the largest value."""
    return Axis(label, 0.0, max(values, default=0.0) or 1.0)


def around(label: str, values: Sequence[float]) -> Axis:
    """An axis that is filled by the values; logarithmic if they differ much."""
    low, high = min(values), max(values)
    if low > 0 and high / low > LOGARITHMIC:
        return Axis(label, low / 1.05, high * 1.05, logarithmic=True)
    room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(label, low - room, high + room)


def plot(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    caption: str,
    told: str,
    *,
    key: Html | None = None,
) -> Html:
    """Lines and dots over two axes.

    Args:
        series: the later, the further in front.
        x: axis to the right,
        y: and upwards; all points lie within both.
        caption: says what is shown.
        told: what the picture tells, for those who do not see it.
        key: what the colours mean.
    """
    across = "".join(f"M0 {_down(y, tick)}H{SIDE}" for tick in y.ticks())
    drawn = [element("title", told), element("path", d=across, class_="grid")]
    drawn += [
        element("path", d=_path(line, x, y), class_="faint", stroke=colour(one.colour))
        for one in series
        for line in one.faint
    ]
    for one in series:
        stroke = colour(one.colour)
        drawn += [
            element("path", d=_path(line, x, y), class_="bold", stroke=stroke) for line in one.lines
        ]
        if one.dots:
            # A line of no length with a round end is a dot that does not stretch.
            dots = "".join(f"M{_along(x, a)} {_down(y, b)}h0" for a, b in one.dots)
            drawn.append(element("path", d=dots, class_="dots", stroke=stroke))
    svg = element(
        "svg", *drawn, viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none", role="img"
    )
    return element(
        "figure",
        element("figcaption", caption),
        *([] if key is None else [key]),
        element(
            "div",
            element("div", y.label, class_="label"),
            element("div", *_ticks(y, "bottom"), class_="y", aria_hidden="true"),
            element("div", svg, class_="area"),
            element("div", *_ticks(x, "left"), class_="x", aria_hidden="true"),
            element("div", x.label, class_="label below"),
            class_="plot",
        ),
    )


def _ticks(axis: Axis, side: str) -> list[Html]:
    ticks = axis.ticks()
    return [
        element("span", _tick(tick, ticks), style=f"{side}:{100 * axis.part(tick):.3f}%")
        for tick in ticks
    ]


def _tick(value: float, among: Sequence[float]) -> str:
    """With as many digits as tell it from its neighbours."""
    gaps = [b - a for a, b in pairwise(among)]
    smallest = min([abs(gap) for gap in gaps] or [abs(value) or 1.0])
    places = max(0, -math.floor(math.log10(smallest) + 1e-9))
    return f"{value:,.{places}f}"


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    path = "M" + "L".join(f"{_along(x, a)} {_down(y, b)}" for a, b in points)
    return path if len(points) > 1 else f"{path}h0"


def _along(x: Axis, value: float) -> str:
    return f"{SIDE * x.part(value):.1f}"


def _down(y: Axis, value: float) -> str:
    return f"{SIDE * (1 - y.part(value)):.1f}"


def _step(least: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [10.0**power * factor for power in powers for factor in (1, 2, 5)]
    return [value for value in every if low <= value <= high]


def _thinned(values: list[float], most: int) -> list[float]:
    return values[:: max(1, math.ceil(len(values) / most))]
