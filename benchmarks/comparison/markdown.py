"""Tables as the documents have them."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Markdown; nothing without rows."""
    if rows:
        for row in (header, ["---"] * len(header), *rows):
            print(f"| {' | '.join(row)} |")
        print()
