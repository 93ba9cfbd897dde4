"""What makes figures less trustworthy: warnings, conditions on the machine, what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.record import Turn
from edgedec.runtime.report.figures import NOTHING, number
from edgedec.runtime.report.markup import Html, element, join
from edgedec.runtime.report.page import grid
from edgedec.runtime.report.rows import Shown, measured
from edgedec.runtime.report.sections.section import Section, folded

HEAD = ("Round", "Requests", "Files", "Other processes", "Stolen", "Clock, MHz", "Yardstick, ms")


def trust(rows: Sequence[Shown], absent: Sequence[Section]) -> Section:
    """Warnings, what was not measured and why, and what else went on."""
    parts = [*_warnings(rows), *_missing(rows, absent)]
    some = measured(rows)
    if some:
        words = (
            "What else went on in each round. Others: time of other processes, as a part of all "
            "cores'. Stolen: by a hypervisor. The yardstick is a fixed piece of work: a slower "
            "one means a slower machine."
        )
        parts += [element("h3", "Conditions"), element("p", words)]
        parts += [folded(one.name, [_conditions(one)], unfolded=len(some) == 1) for one in some]
    return Section("trust", "Warnings and gaps", parts)


def _warnings(rows: Sequence[Shown]) -> list[Html]:
    warned = [one for one in rows if one.row.warnings]
    if not warned:
        return [element("p", "No warnings.")]
    found: dict[str, list[str]] = {}
    for one in warned:
        for warning in one.row.warnings:
            found.setdefault(warning, []).append(one.name)
    lines = [element("li", _of(names, len(rows)), warning) for warning, names in found.items()]
    return [element("div", element("ul", *lines), class_="note warnings")]


def _of(names: Sequence[str], rows: int) -> str:
    """Which rows a sentence is about; nothing if it is about all."""
    return "" if len(names) == rows else f"{', '.join(names)}: "


def _missing(rows: Sequence[Shown], absent: Sequence[Section]) -> list[Html]:
    parts = []
    if absent:
        lines = [
            element("li", element("strong", f"{section.title}: "), section.absent)
            for section in absent
        ]
        parts += [element("h3", "Not in this report"), element("ul", *lines, class_="absent")]
    found: dict[tuple[str, str], list[str]] = {}
    for one in rows:
        for metric, reason in one.row.missing.items():
            found.setdefault((metric, reason), []).append(one.name)
    # What the same rows lack for the same reason is one line.
    together: dict[tuple[str, str], list[str]] = {}
    for (metric, reason), names in found.items():
        together.setdefault((reason, _in(names, len(rows))), []).append(metric)
    if together:
        lines = [
            element("li", _listed(metrics), f": {reason}{where}")
            for (reason, where), metrics in together.items()
        ]
        parts += [element("h3", "Not measured"), element("ul", *lines, class_="missing")]
    return parts


def _listed(metrics: Sequence[str]) -> Html:
    """Names of metrics, each findable."""
    first, *others = (element("code", name, data_missing=name) for name in metrics)
    return join([first, *(part for name in others for part in (", ", name))])


def _in(names: Sequence[str], rows: int) -> str:
    return "" if len(names) == rows else f" ({', '.join(names)})"


def _conditions(one: Shown) -> Html:
    return grid(f"{one.name}, by round.", HEAD, map(_turn, one.row.turns))


def _turn(turn: Turn) -> Html:
    found = turn.conditions
    cells = [
        f"{len(turn.samples):,}",
        turn.file_cache or NOTHING,
        NOTHING if found.others is None else f"{found.others:.1%}",
        NOTHING if found.stolen is None else f"{found.stolen:.1%}",
        NOTHING if found.clock_mhz is None else number(found.clock_mhz),
        number(found.yardstick_ms),
    ]
    return element(
        "tr",
        element("th", str(turn.round + 1), scope="row"),
        *(element("td", cell) for cell in cells),
    )
