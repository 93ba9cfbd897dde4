"""Rows of a profile as a page shows them: by name, number and colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from edgedec.runtime.profiling.record import Configuration, Profile, Row, Sample
from edgedec.runtime.profiling.summary import median
from edgedec.runtime.report.bars import COLOURS, legend
from edgedec.runtime.report.markup import Html

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shown:
    """A row.

    Attributes:
        index: in the profile, from 0.
        name: what tells it from the others.
        row: as measured.
    """

    index: int
    name: str
    row: Row

    @property
    def colour(self) -> int:
        """Number of its colour."""
        return self.index

    @property
    def samples(self) -> list[Sample]:
        """All that count, of all rounds."""
        return [sample for turn in self.row.turns for sample in turn.samples]

    def value(self, metric: str) -> float | None:
        """The median of a metric; None if it was not measured."""
        summary = self.row.metrics.get(metric)
        return None if summary is None else summary.p50

    @property
    def middle(self) -> Sample | None:
        """The request whose time is nearest to the median: one that really was."""
        samples = self.samples
        if not samples:
            return None
        usual = median(sample.e2e_ms for sample in samples)
        return min(samples, key=lambda sample: abs(sample.e2e_ms - usual))


def shown(profile: Profile) -> list[Shown]:
    """All rows, with names that differ."""
    told = [_told(row.configuration) for row in profile.rows]
    differing = (
        [column for column in range(len(told[0])) if len({words[column] for words in told}) > 1]
        if told
        else []
    )
    columns = differing or [0]
    known = [_joined([words[column] for column in columns], " \N{MIDDLE DOT} ") for words in told]
    often = Counter(known)
    return [
        Shown(index, name if often[name] == 1 else f"{name} #{index + 1}", row)
        for index, (name, row) in enumerate(zip(known, profile.rows, strict=True))
    ]


def in_common(profile: Profile) -> str:
    """What all rows share, beside the bundle, in a line."""
    columns = list(zip(*(_told(row.configuration) for row in profile.rows), strict=True))[1:]
    return _joined([words[0] for words in columns if len(set(words)) == 1], ", ")


def measured(rows: Sequence[Shown]) -> list[Shown]:
    """Those that did not fail and have samples."""
    return [one for one in rows if one.samples]


def groups(rows: Sequence[Item]) -> Iterator[list[Item]]:
    """As many at a time as there are colours."""
    rest = iter(rows)
    while group := list(islice(rest, COLOURS)):
        yield group


def names(rows: Sequence[Shown]) -> Html | None:
    """Whose colour is which; None where there is only one."""
    return legend((one.name, one.colour) for one in rows) if len(rows) > 1 else None


def _joined(words: Sequence[str], by: str) -> str:
    return by.join(word for word in words if word)


def _told(what: Configuration) -> tuple[str, ...]:
    threads = "default threads" if what.threads is None else f"{what.threads:,} threads"
    if what.new_tokens is None:
        new = "as many out as the checkpoint allows"
    else:
        new = f"{'up to ' if what.text is not None else ''}{what.new_tokens:,} out"
    return (
        what.bundle,
        what.device,
        threads if what.threads != 1 else "1 thread",
        f"batch {what.batch:,}",
        f"text {what.text}" if what.source_tokens is None else f"{what.source_tokens:,} in",
        new,
        "full depth" if what.depth == "full" else what.depth,
        "" if what.program == "edgedec" or what.program in what.bundle else what.program,
    )
