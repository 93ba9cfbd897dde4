"""The table that `edgedec profile` prints: one line per configuration, as llama-bench does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edgedec.runtime.profiling.record import Profile, Row
from edgedec.runtime.report.figures import counted
from edgedec.runtime.report.markup import printable
from edgedec.runtime.report.notes import notes
from edgedec.runtime.report.settings import LABELS, TEST, settings
from edgedec.runtime.report.table import Column, Table, factor_out, figures


class Shown(NamedTuple):
    """A metric in the table.

    Attributes:
        metric: its name.
        deviation: whether it shows its standard deviation.
        rank: as of `Column`.
    """

    metric: str
    deviation: bool
    rank: int | None


METRICS = (
    Shown("ttft_ms", True, 5),
    Shown("tpot_ms", True, 6),
    Shown("tokens_per_s", False, 4),
    Shown("e2e_ms", True, None),
    Shown("cold_start_ms", False, 0),
    Shown("peak_rss_mb", False, 3),
)
LAYERS = Shown("mean_layers", False, 3)
"""Shown where depth is."""


def overview(profile: Profile) -> Table:
    """All rows with the figures that matter most."""
    rows = profile.rows
    identity = settings([row.configuration for row in rows], profile.bundles)
    shown = [*METRICS]
    if any(column.name == "depth" for column in identity):
        shown.insert(0, LAYERS)
    columns, same = factor_out(identity, TEST)
    sentences, numbers = notes(rows)
    columns += [
        figures(_label(metric), values, deviation=deviation, rank=rank)
        for metric, deviation, rank in shown
        if any(values := [row.metrics.get(metric) for row in rows])
    ]
    if sentences:
        columns.append(Column("note", tuple(numbers)))
    above = [*filter(None, (same, _machine(profile)))]
    return Table(
        title="",
        facts=(*above, _effort(profile, "Medians (\N{PLUS-MINUS SIGN} standard deviation)")),
        brief=(*above, _effort(profile, "Medians")),
        columns=tuple(columns),
        notes=tuple(sentences),
        remarks=(*_missing(rows, shown), *_layers(rows)),
    )


def _label(metric: str) -> str:
    return LABELS.get(metric, "layers")


def _machine(profile: Profile) -> str:
    there = profile.environment
    parts = [there.cpu, counted(there.cores, "core"), there.instruction_set]
    parts += [
        f"{name} {version}"
        for name, version in sorted(there.versions.items())
        if name in {"edgedec", "onnxruntime"}
    ]
    return printable(", ".join(filter(None, parts)))


def _effort(profile: Profile, what: str) -> str:
    effort = profile.effort
    where = "each a process of its own" if effort.fresh else "all in one process"
    return (
        f"{what} of {counted(effort.repetitions, 'request')} in "
        f"{counted(effort.rounds, 'round')}, {where}."
        + ("" if profile.complete else " Interrupted: some rows have fewer.")
    )


def _layers(rows: tuple[Row, ...]) -> Iterator[str]:
    """What may be more than the model has needs a word."""
    if any(sample.drafted for row in rows for turn in row.turns for sample in turn.samples):
        yield (
            "layers: decoder layers that ran, per token that was kept. Those of drafts count too, "
            "of rejected ones as well, so it can be more than the model has."
        )


def _missing(rows: tuple[Row, ...], shown: list[Shown]) -> Iterator[str]:
    """Why there are dashes in rows that were measured; each reason once."""
    reasons: dict[str, dict[str, None]] = {}
    for metric, _, _ in shown:
        for row in rows:
            if row.turns and metric in row.missing:
                reasons.setdefault(row.missing[metric], {})[_label(metric)] = None
    for reason, metrics in reasons.items():
        yield f"{', '.join(metrics)} not measured: {printable(reason)}"
