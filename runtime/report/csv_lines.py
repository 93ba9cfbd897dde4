"""A profile as CSV (RFC 4180): a line per row, every metric, bare numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from edgedec.runtime.profiling.record import Profile, Row
from edgedec.runtime.report.markup import printable

STATISTICS = ("p50", "mean", "sd", "p90", "p99")
FORMULA = ("=", "+", "-", "@")
"""Beginnings of text that spreadsheets take for a formula."""
Value = str | int | float | None


def csv_text(profile: Profile) -> str:
    """The lines, with a head; what was not measured is empty."""
    metrics = list(dict.fromkeys(name for row in profile.rows for name in row.metrics))
    records = [dict(_record(profile, row, metrics)) for row in profile.rows]
    head = list(dict.fromkeys(key for record in records for key in record))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(head)
    writer.writerows([_cell(record[key]) for key in head] for record in records)
    return out.getvalue()


def _record(profile: Profile, row: Row, metrics: list[str]) -> Iterator[tuple[str, Value]]:
    what, there = row.configuration, profile.environment
    facts = profile.bundles.get(what.bundle)
    yield from vars(what).items()
    yield "error", row.error
    yield "warnings", "; ".join(row.warnings) or None
    yield "precision", None if facts is None else facts.precision
    yield "file_bytes", None if facts is None else facts.file_bytes
    yield "sha256", None if facts is None else facts.sha256
    yield "date", there.date
    yield "cpu", there.cpu
    yield "producer", profile.producer
    yield "onnxruntime", there.versions.get("onnxruntime")
    yield "rounds", len(row.turns)
    yield "samples", sum(len(turn.samples) for turn in row.turns)
    for name in metrics:
        summary = row.metrics.get(name)
        for statistic in STATISTICS:
            value = None if summary is None else getattr(summary, statistic)
            yield f"{name}_{statistic}", value


def _cell(value: Value) -> Value:
    """Numbers with all their digits; text that neither terminal nor spreadsheet obeys."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text
