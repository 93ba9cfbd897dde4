"""What depth policies did: after which layers tokens came, and which drafts were accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgedec.runtime.report.bars import Bar, Segment, chart
from edgedec.runtime.report.figures import counted, figure
from edgedec.runtime.report.markup import Html, element, join
from edgedec.runtime.report.rows import Shown, measured
from edgedec.runtime.report.sections.section import Section, per_row

FULL = "full"


def depth(rows: Sequence[Shown]) -> Section:
    """Of rows with a policy that leaves layers out."""
    some = [one for one in measured(rows) if one.row.configuration.depth != FULL]
    return Section(
        "depth",
        "Depth policies",
        per_row(some, _depth, of=rows),
        "all rows ran at full depth: --depth names a policy.",
    )


def _depth(one: Shown) -> list[Html]:
    drafted = sum(sample.drafted or 0 for sample in one.samples)
    accepted = sum(sample.accepted or 0 for sample in one.samples)
    parts = []
    layers = one.value("mean_layers")
    if layers is not None:
        told = figure(layers, one.index, "mean_layers", "p50")
        also = " Those of drafts count too, of rejected ones as well." if drafted else ""
        parts.append(element("p", told, f" decoder layers per token in the median.{also}"))
    if drafted:
        share = figure(100 * accepted / drafted, one.index, "accepted_percent")
        words = f"Drafts: {counted(drafted, 'token')}, {accepted:,} accepted ("
        parts.append(element("p", words, share, " %)."))
    exits: Counter[str] = Counter()
    for sample in one.samples:
        exits.update(sample.exits or {})
    if exits:
        parts.append(_exits(one, exits))
    return parts


def _exits(one: Shown, exits: Counter[str]) -> Html:
    total = sum(exits.values())
    bars = [
        Bar(
            f"after layer {layer}",
            [Segment(f"layer {layer}", float(count), one.colour, f"exit[{layer}]")],
            join(
                [
                    element(
                        "data",
                        f"{count:,}",
                        value=count,
                        data_row=one.index,
                        data_metric=f"exit[{layer}]",
                    ),
                    f" tokens, {count / total:.1%}" if total else " tokens",
                ]
            ),
            one.index,
        )
        for layer, count in sorted(exits.items(), key=_number)
    ]
    return chart(
        bars, "The last layer of each token of steps after the first, over all requests.", "tokens"
    )


def _number(item: tuple[str, int]) -> tuple[int, str]:
    layer = item[0]
    return (int(layer) if layer.isdecimal() else 0, layer)
