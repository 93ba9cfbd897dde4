"""Time by layers and by types of operators, of a run with records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edgedec.runtime.profiling.record import Operator, Operators
from edgedec.runtime.report.bars import Bar, Segment, chart, legend
from edgedec.runtime.report.figures import figure, number
from edgedec.runtime.report.markup import Html, element, join
from edgedec.runtime.report.page import grid
from edgedec.runtime.report.rows import Shown
from edgedec.runtime.report.sections.section import Section, folded, per_row

LAYER = re.compile(r"(.*\.\d+)\.(.+)")
"""A layer, and a part of it."""
WHOLE = "whole"
"""The part of what has none."""
MOST_TYPES = 10
STEP = "step"
PHASES = {"encode": "Encoder", "first step": "First step", STEP: "Further steps, per step"}
ABSENT = "operators were not recorded: --ops runs every row once more with records."


def layers(rows: Sequence[Shown]) -> Section:
    """A bar for each layer, divided into its parts; encoder, first and further steps apart."""
    return Section("layers", "Layers", per_row(_recorded(rows), _layers, few=1), ABSENT)


def types(rows: Sequence[Shown]) -> Section:
    """A bar for each type of operators, and all figures."""
    return Section("operators", "Operator types", per_row(_recorded(rows), _types, few=1), ABSENT)


def _recorded(rows: Sequence[Shown]) -> list[Shown]:
    return [one for one in rows if one.row.operators is not None]


def _layers(one: Shown) -> list[Html]:
    recorded = one.row.operators
    assert recorded is not None
    parts = list(dict.fromkeys(_split(found.name)[1] for found in recorded.by_layer))
    colours = {part: number_ for number_, part in enumerate(parts)}
    charts = [
        _layer_chart(one.index, phase, found, recorded, colours)
        for phase, found in _by_phase(recorded.by_layer)
    ]
    names = [(part if part != WHOLE else "not in a layer", n) for part, n in colours.items()]
    table = _table(one.index, "layer", "Part of the model", recorded.by_layer, recorded)
    return [_about(recorded, one), legend(names), *charts, folded("All figures", [table])]


def _about(recorded: Operators, one: Shown) -> Html:
    middle = one.middle
    against = (
        "" if middle is None else f"; the median request without them takes {number(middle.e2e_ms)}"
    )
    cross = []
    if recorded.cross_kv_ms is not None:
        cross = [
            " Keys and values of the encoder's states for the decoder took ",
            figure(recorded.cross_kv_ms, one.index, "operators[cross_kv_ms]"),
            " ms.",
        ]
    return element(
        "p",
        "One request, run apart with records of every operator, which take time themselves: ",
        figure(recorded.e2e_ms, one.index, "operators[e2e_ms]"),
        f" ms{against}.",
        *cross,
    )


def _by_phase(operators: Iterable[Operator]) -> list[tuple[str, list[Operator]]]:
    found: dict[str, list[Operator]] = {phase: [] for phase in PHASES}
    for one in operators:
        found.setdefault(one.phase, []).append(one)
    return [(phase, some) for phase, some in found.items() if some]


def _per(phase: str, recorded: Operators) -> int:
    """Further steps are shown as one of them."""
    return max(1, recorded.steps) if phase == STEP else 1


def _split(name: str) -> tuple[str, str]:
    match = LAYER.fullmatch(name)
    return (match[1], match[2]) if match else (name, WHOLE)


def _layer_chart(
    row: int,
    phase: str,
    operators: Sequence[Operator],
    recorded: Operators,
    colours: dict[str, int],
) -> Html:
    per = _per(phase, recorded)
    found: dict[str, dict[str, float]] = {}
    for one in operators:
        layer, part = _split(one.name)
        parts = found.setdefault(layer, {})
        parts[part] = parts.get(part, 0.0) + one.ms / per
    bars = [
        Bar(
            layer,
            [Segment(part, value, colours[part], part) for part, value in parts.items()],
            join([figure(sum(parts.values()), row, f"layer[{phase}][{layer}]"), " ms"]),
            row,
        )
        for layer, parts in found.items()
    ]
    return chart(bars, _caption(phase, sum(bar_sum(bar) for bar in bars)), "ms")


def bar_sum(bar: Bar) -> float:
    """The length of a bar."""
    return sum(segment.value for segment in bar.segments)


def _caption(phase: str, total: float) -> str:
    return f"{PHASES.get(phase, phase)}: {number(total)} ms in all operators."


def _types(one: Shown) -> list[Html]:
    recorded = one.row.operators
    assert recorded is not None
    charts = [
        _type_chart(one.index, phase, found, recorded)
        for phase, found in _by_phase(recorded.by_type)
    ]
    table = _table(one.index, "type", "Operator type", recorded.by_type, recorded)
    return [*charts, folded("All figures", [table])]


def _type_chart(row: int, phase: str, operators: Sequence[Operator], recorded: Operators) -> Html:
    per = _per(phase, recorded)
    times: dict[str, float] = {}
    for one in operators:
        times[one.name] = times.get(one.name, 0.0) + one.ms / per
    ordered = sorted(times.items(), key=lambda item: -item[1])
    shown, rest = ordered[:MOST_TYPES], ordered[MOST_TYPES:]
    if rest:
        shown.append((f"{len(rest):,} other types", sum(value for _, value in rest)))
    total = sum(times.values())
    bars = [
        Bar(
            name,
            [Segment(name, value, list(PHASES).index(phase) if phase in PHASES else 3, name)],
            join(
                [
                    figure(value, row, f"type[{phase}][{name}]"),
                    f" ms, {value / total:.1%}" if total else " ms",
                ]
            ),
            row,
        )
        for name, value in shown
    ]
    return chart(bars, _caption(phase, total), "ms")


def _table(
    row: int, kind: str, head: str, operators: Sequence[Operator], recorded: Operators
) -> Html:
    names = ("Phase", head, "Component", "Calls", "ms in all", "ms per step")
    lines = [
        element(
            "tr",
            element("th", one.phase, scope="row"),
            element("td", one.name, class_="text"),
            element("td", one.component, class_="text"),
            element("td", f"{one.calls:,}"),
            element("td", figure(one.ms, row, f"{kind}[{one.phase}][{one.name}][{one.component}]")),
            element("td", number(one.ms / _per(one.phase, recorded))),
        )
        for one in operators
    ]
    return grid(f"Time by {kind}; {recorded.steps:,} steps after the first.", names, lines)
