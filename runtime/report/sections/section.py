"""A part of the page with a heading of its own, and what sections share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgedec.runtime.report.markup import Html, element
from edgedec.runtime.report.rows import Shown

FEW = 3
"""So many rows are shown at once; of more, all but the first are folded."""


@dataclass(frozen=True)
class Section:
    """A section.

    Attributes:
        anchor: its id on the page.
        title: its heading.
        parts: what it shows; empty where there is nothing to show.
        absent: why there is nothing, and how to get it, in a sentence.
    """

    anchor: str
    title: str
    parts: Sequence[Html]
    absent: str = ""


def per_row(
    rows: Sequence[Shown],
    draw: Callable[[Shown], Sequence[Html]],
    *,
    of: Sequence[Shown],
    few: int = FEW,
) -> list[Html]:
    """The same for every row: as it is on a page with one row, else under its name.

    Args:
        rows: to be drawn.
        draw: makes the parts of one, or none.
        of: all rows of the page.
        few: as many are unfolded at first; of more, only the first.
    """
    drawn = [(row, parts) for row in rows if (parts := draw(row))]
    if len(of) == 1:
        return [part for _, parts in drawn for part in parts]
    return [
        folded(row.name, parts, unfolded=position == 0 or len(rows) <= few)
        for position, (row, parts) in enumerate(drawn)
    ]


def folded(name: str, parts: Sequence[Html], *, unfolded: bool = False) -> Html:
    """What is seen at once, or at a click."""
    return element("details", element("summary", name), *parts, open=unfolded)
