"""A table as lines of a terminal; where it is too narrow, less is shown, but never broken lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from textwrap import wrap

from edgedec.runtime.report.columns import columns as aligned
from edgedec.runtime.report.table import Column, Table

GAP = 2
"""Spaces between columns."""


def lines(table: Table, width: int) -> list[str]:
    """Lay out a table.

    Args:
        table: with at least one column.
        width: letters that a line may have. Columns are shortened first, then left out, both from
            the least important on; if that is not enough, every row becomes a short list.
    """
    fitting, left_out = _fit(table.columns, width)
    shortened: dict[str, list[str]] = {}
    for column in fitting:
        if column.detail and column not in table.columns:
            shortened.setdefault(column.detail, []).append(column.name)
    left_out += [f"{detail} of {' and '.join(names)}" for detail, names in shortened.items()]
    remarks = table.remarks
    if left_out:
        remarks = (*remarks, f"Too narrow for {', '.join(left_out)}: -o md shows everything.")
    detailed = any(column.detail and column in table.columns for column in fitting or table.columns)
    facts = table.facts if detailed or not table.brief else table.brief
    above = [line for fact in (table.title, *facts) for line in _wrapped(fact, width)]
    below = [
        line
        for number, note in enumerate(table.notes, 1)
        for line in _wrapped(f"[{number}] {note}", width, indent=4)
    ]
    below += [line for remark in remarks for line in _wrapped(remark, width)]
    body = _side_by_side(fitting) if fitting else _lists(table.columns)
    return [*above, *([""] if above else []), *body, *([""] if below else []), *below]


def _fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Columns that fit, none if even the most important do not, and names of those left out."""
    if _width(columns) <= width:
        return list(columns), []
    left = list(columns)
    for column in sorted(columns, key=_rank):
        if column.short is not None and _width(left) > width:
            left[left.index(column)] = replace(column, cells=column.short)
    left_out: list[str] = []
    while _width(left) > width:
        lowest = min(left, key=_rank)
        if lowest.rank is None:
            return [], []
        left.remove(lowest)
        left_out.append(lowest.name)
    return left, left_out


def _rank(column: Column) -> float:
    """The least important first, the indispensable last."""
    return math.inf if column.rank is None else column.rank


def _width(columns: Sequence[Column]) -> int:
    widths = (max(map(len, (column.name, *column.cells))) for column in columns)
    return sum(widths) + GAP * (len(columns) - 1)


def _side_by_side(columns: Sequence[Column]) -> list[str]:
    right = frozenset(index for index, column in enumerate(columns) if column.right)
    rows = zip(*((column.name, *column.cells) for column in columns), strict=True)
    return aligned([list(row) for row in rows], right=right)


def _lists(columns: Sequence[Column]) -> list[str]:
    """Every row as lines of names and values."""
    found: list[str] = []
    names = [column.name for column in columns]
    for cells in zip(*(column.cells for column in columns), strict=True):
        found += [""] if found else []
        found += aligned([[name, cell] for name, cell in zip(names, cells, strict=True) if cell])
    return found


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    return wrap(
        text,
        max(width, indent + 20),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
