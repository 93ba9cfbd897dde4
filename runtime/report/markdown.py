"""A table as Markdown, with the tables of GitHub."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgedec.runtime.report.table import Table

SPECIAL = re.compile(r"([\\`*_\[\]<>|&~$#!])")
"""What Markdown, its tables or HTML in it could obey."""
LISTED = re.compile(r"^(\d*)([-+.)])(?= )")
"""What would begin a list."""


def lines(table: Table) -> list[str]:
    """All columns, with what stands above and below as lists."""
    above = [f"### {escape(table.title)}", ""] if table.title else []
    above += [f"* {escape(fact)}" for fact in table.facts]
    head = [escape(column.name) for column in table.columns]
    rule = ["---:" if column.right else "---" for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = [_row(head), _row(rule), *(_row([escape(cell) for cell in cells]) for cells in rows)]
    notes = [f"{number}. {escape(note)}" for number, note in enumerate(table.notes, 1)]
    remarks = [f"* {escape(remark)}" for remark in table.remarks]
    blocks = [above, body, notes, remarks]
    found: list[str] = []
    for block in filter(None, blocks):
        found += ["", *block] if found and found[-1] else block
    return found


def escape(text: str) -> str:
    """Text that shows as it is; spaces are folded, as everywhere in Markdown."""
    return LISTED.sub(r"\1\\\2", SPECIAL.sub(r"\\\1", " ".join(text.split())))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
