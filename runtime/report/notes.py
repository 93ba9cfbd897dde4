"""What must be said of rows: numbered sentences below a table, as few as possible."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edgedec.runtime.profiling.record import Row
from edgedec.runtime.report.markup import printable

NUMBER = re.compile(r"(?<![\w.,-])\d+(?:,\d{3})*(?:\.\d+)?(?!\.?[\w-]|,\d)")
"""A figure, no part of a name or a version."""


def notes(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Sentences, and for each row the numbers of its own.

    Warnings that differ in figures only are one sentence with their range, ``60 to 67 %``.
    """
    alike: dict[str, list[str]] = {}
    of_rows = []
    for row in rows:
        keys = []
        for key, sentence in _said(row):
            alike.setdefault(key, []).append(sentence)
            keys.append(key)
        of_rows.append(keys)
    numbers = {key: str(number) for number, key in enumerate(alike, 1)}
    return [_merged(sentences) for sentences in alike.values()], [
        ", ".join(dict.fromkeys(numbers[key] for key in keys)) for keys in of_rows
    ]


def merged(sentences: Sequence[str]) -> list[str]:
    """Sentences, of which those that differ in figures only have become one with their range."""
    alike: dict[str, list[str]] = {}
    for sentence in sentences:
        alike.setdefault(NUMBER.sub("\0", sentence), []).append(sentence)
    return [_merged(found) for found in alike.values()]


def _said(row: Row) -> Iterator[tuple[str, str]]:
    """Sentences, each after what it has in common with those that it may be merged with."""
    if row.error is not None:
        error = f"Failed: {printable(row.error)}"
        yield error, error
    elif not row.turns:
        reason = printable(row.missing.get("e2e_ms", "Nothing was measured."))
        yield reason, reason
    for warning in map(printable, row.warnings):
        yield NUMBER.sub("\0", warning), warning


def _merged(sentences: Sequence[str]) -> str:
    """Sentences that are the same between their figures, as one."""
    between = NUMBER.split(sentences[0])
    if len(set(sentences)) == 1:
        return sentences[0]
    figures = zip(*(NUMBER.findall(sentence) for sentence in sentences), strict=True)
    return between[0] + "".join(
        f"{_range(values)}{following}"
        for values, following in zip(figures, between[1:], strict=True)
    )


def _range(figures: Sequence[str]) -> str:
    ordered = sorted(set(figures), key=lambda figure: float(figure.replace(",", "")))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
