"""A profile in the format of ``edgedec profile -o``."""

from __future__ import annotations

import json
from collections.abc import Callable

from edgedec.runtime.profiling.comparison import Comparison
from edgedec.runtime.profiling.record import Profile, dump_profile
from edgedec.runtime.report import markdown, terminal
from edgedec.runtime.report.beside import beside
from edgedec.runtime.report.change import change_table, remarks, verdict
from edgedec.runtime.report.csv_lines import csv_text
from edgedec.runtime.report.overview import overview
from edgedec.runtime.report.table import Table
from edgedec.runtime.schema import encode

WIDTH = 100
"""Letters of a line where there is no terminal to ask."""


def render(
    profile: Profile, form: str, comparison: Comparison | None = None, *, width: int = WIDTH
) -> str:
    """A profile as text that ends with a line break; the same for the same profile.

    Args:
        profile: to show.
        form: ``table``, ``md``, ``csv``, ``json`` or ``jsonl``.
        comparison: shown below tables; the other formats are data of one profile, without it.
        width: letters of a line of ``table``.
    """
    if form == "json":
        return dump_profile(profile)
    if form == "jsonl":
        return jsonl(profile)
    if form == "csv":
        return csv_text(profile)
    if form == "md":
        return _document(profile, comparison, markdown.lines, markdown.escape)
    return _document(profile, comparison, lambda table: terminal.lines(table, width), str)


def jsonl(profile: Profile) -> str:
    """A line of JSON for each row, which says itself what it was measured with."""
    shared = encode(profile)
    rows, bundles = shared.pop("rows"), shared.pop("bundles")
    found = [
        {**shared, "facts": bundles.get(row["configuration"]["bundle"]), **row} for row in rows
    ]
    return "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in found)


def _document(
    profile: Profile,
    comparison: Comparison | None,
    lines: Callable[[Table], list[str]],
    escape: Callable[[str], str],
) -> str:
    blocks = [lines(overview(profile))]
    ratios = beside(profile)
    if ratios is not None:
        blocks.append(lines(ratios))
    if comparison is not None:
        changes = change_table(comparison)
        blocks.append(
            lines(changes) if changes is not None else [*map(escape, remarks(comparison))]
        )
        blocks.append([escape(verdict(comparison))])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
