"""Tables before they are laid out: columns of text with what stands above and below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgedec.runtime.profiling.record import Summary
from edgedec.runtime.report.markup import printable

NOTHING = "-"
"""Where a figure does not exist."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its head.
        cells: of all rows.
        right: aligned to the right, as numbers are.
        rank: among the columns that may be left out where there is no room, the lowest first;
            None for those that a row cannot do without.
        short: the same cells in fewer letters, if there is a way,
        detail: and what they leave out, in words.
    """

    name: str
    cells: tuple[str, ...]
    right: bool = False
    rank: int | None = None
    short: tuple[str, ...] | None = None
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: over everything; empty for none.
        facts: lines above,
        brief: and those where all columns had to be shortened; empty for the same.
        columns: with equally many cells.
        notes: sentences below, which cells name by number, from 1.
        remarks: further sentences below.
    """

    title: str
    facts: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()


def words(name: str, cells: Sequence[str], rank: int | None = None) -> Column:
    """A column of text, of which no terminal obeys anything."""
    return Column(name, tuple(map(printable, cells)), rank=rank)


def factor_out(columns: Sequence[Column], keep: str) -> tuple[list[Column], str]:
    """What is the same in all rows is said once.

    Args:
        columns: that tell rows apart.
        keep: name of one that stays in any case.

    Returns:
        The columns that stay, and a line with the others.
    """
    stay, said = [], []
    for column in columns:
        if len(set(column.cells)) > 1 or column.name == keep:
            stay.append(column)
        elif column.cells and column.cells[0] != NOTHING:
            said.append(f"{column.name}: {column.cells[0]}")
    return stay, ", ".join(said)


def figures(
    name: str, values: Sequence[Summary | None], *, deviation: bool, rank: int | None
) -> Column:
    """A column of medians, with as many decimals as the smallest needs for three digits.

    Args:
        name: its head.
        values: of all rows.
        deviation: also show the standard deviation.
        rank: of the column.
    """
    places = decimals([value.p50 for value in values if value is not None])
    medians = [NOTHING if value is None else f"{value.p50:,.{places}f}" for value in values]
    deviations = [
        "" if value is None or value.sd is None else f"{value.sd:,.{places}f}" for value in values
    ]
    width = max(map(len, deviations), default=0)
    full = tuple(
        f"{median} \N{PLUS-MINUS SIGN} {sd:>{width}}" if sd else median
        for median, sd in zip(medians, deviations, strict=True)
    )
    if not deviation:
        return Column(name, tuple(medians), right=True, rank=rank)
    if full == tuple(medians):
        return Column(name, full, right=True, rank=rank)
    return Column(name, full, right=True, rank=rank, short=tuple(medians), detail="the deviation")


def decimals(values: Sequence[float]) -> int:
    """Decimals that give the smallest of these three digits, at most six."""
    least = min((abs(value) for value in values if value), default=1.0)
    return min(max(2 - math.floor(math.log10(least)), 0), 6)
