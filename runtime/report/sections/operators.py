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
STACKS = ("encoder", "decoder")
WHOLE = "whole"
"""The part of what has none."""
MOST_TYPES = 10
STEP = "step"
PHASES = {"encode": "Encoder", "first step": "First step", STEP: "Further steps, per step"}
ABSENT = "operators were not recorded: --ops runs every row once more with records."


def layers(rows: Sequence[Shown]) -> Section:
    """A bar for each layer, divided into its parts; encoder, first and further steps apart."""
    return Section("layers", "Layers", per_row(_recorded(rows), _layers, of=rows, few=1), ABSENT)


def types(rows: Sequence[Shown]) -> Section:
    """A bar for each type of operators, and all figures."""
    return Section(
        "operators", "Operator types", per_row(_recorded(rows), _types, of=rows, few=1), ABSENT
    )


def _recorded(rows: Sequence[Shown]) -> list[Shown]:
    return [one for one in rows if one.row.operators is not None]


def _layers(one: Shown) -> list[Html]:
    recorded = one.row.operators
    assert recorded is not None
    parts = {_split(found.name)[1]: None for found in recorded.by_layer}
    inside = [part for part in parts if part != WHOLE]
    colours = {part: number_ for number_, part in enumerate([*inside, WHOLE]) if part in parts}
    charts = [
        _layer_chart(one.index, phase, found, recorded, colours)
        for phase, found in _by_phase(recorded.by_layer)
    ]
    names = [(part if part != WHOLE else "not in a layer", n) for part, n in colours.items()]
    table = _table(one.index, "layer", "Part of the model", recorded.by_layer, recorded)
    return [_about(recorded, one), legend(names), *charts, folded("All figures", [table])]


def _about(recorded: Operators, one: Shown) -> Html:
    middle = one.middle
    against = "" if middle is None else f"; without them, {number(middle.e2e_ms)} ms"
    cross = []
    if recorded.cross_kv_ms is not None:
        cross = [
            " Keys and values of the encoder's states for the decoder took ",
            figure(recorded.cross_kv_ms, one.index, "operators[cross_kv_ms]"),
            " ms.",
        ]
    return element(
        "p",
        "One request, run apart with records of every operator. They take time themselves, so that "
        "shares tell more than times: ",
        figure(recorded.e2e_ms, one.index, "operators[e2e_ms]"),
        f" ms with them{against}.",
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
    totals = {layer: sum(parts.values()) for layer, parts in found.items()}
    total = sum(totals.values())
    bars = [
        Bar(
            layer,
            [Segment(part, value, colours[part], part) for part, value in found[layer].items()],
            _shown(totals[layer], total, row, f"layer[{phase}][{layer}]"),
            row,
        )
        for layer in sorted(found, key=_place)
    ]
    return chart(bars, _caption(phase, total), "ms")


def _place(layer: str) -> tuple[int, int, int, str]:
    """Encoder before decoder, and embeddings, layers, the rest of each."""
    stack, _, name = layer.partition(".")
    known = STACKS.index(stack) if stack in STACKS else len(STACKS)
    number_ = int(name) if name.isdecimal() else -1
    return known, 0 if name == "embed" else 1 if number_ >= 0 else 2, number_, layer


def _shown(value: float, total: float, row: int, metric: str) -> Html:
    return join([figure(value, row, metric), f" ms, {value / total:.1%}" if total else " ms"])


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
            _shown(value, total, row, f"type[{phase}][{name}]"),
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
