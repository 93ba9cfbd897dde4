"""Medians of the samples, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("program", "first ms", "x", "per token ms", "x", "peak MB", "load s", "file MB")


def print_case(title: str, programs: Mapping[str, Any], reference: str) -> None:
    """Print one case; the columns "x" divide by the reference's time in the column before."""
    ours = programs.get(reference)
    table = Table(title=title, caption=f"x: time / time of {reference}", title_justify="left")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for name, result in programs.items():
        table.add_row(
            name,
            f"{median(result, 'first_ms'):.1f}",
            _ratio(result, ours, "first_ms"),
            f"{median(result, 'per_token_ms'):.2f}",
            _ratio(result, ours, "per_token_ms"),
            f"{median(result, 'peak_rss_mb'):.0f}",
            f"{statistics.median(result['load_s']):.2f}",
            f"{result['model_bytes'] / 1e6:.1f}",
        )
    console = Console(width=120)
    console.print(table)
    versions = ", ".join(sorted({f"{n.split()[0]} {r['version']}" for n, r in programs.items()}))
    console.print(versions, highlight=False)


def median(result: Mapping[str, Any], key: str) -> float:
    """Median of a figure over all rounds."""
    return float(statistics.median(sample[key] for sample in result["samples"]))


def _ratio(result: Mapping[str, Any], ours: Mapping[str, Any] | None, key: str) -> str:
    return "" if ours is None else f"{median(result, key) / median(ours, key):.2f}"
