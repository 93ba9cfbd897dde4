"""Configurations beside each other, with ratios of the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgedec.runtime.profiling.paired import Ratio, paired
from edgedec.runtime.profiling.ratios import first_label, ratios
from edgedec.runtime.profiling.record import Profile
from edgedec.runtime.profiling.rounds import COMPARED, MEMORY, by_round, over_rounds
from edgedec.runtime.report.bars import Bar, Segment, chart
from edgedec.runtime.report.beside import FASTER
from edgedec.runtime.report.figures import NOTHING, figure, number, unit_of
from edgedec.runtime.report.markup import Html, element, join
from edgedec.runtime.report.rows import Shown, measured
from edgedec.runtime.report.sections.section import Section, folded

CHARTS = {
    "e2e_ms": "End to end: from the request to its last token, medians",
    "ttft_ms": "TTFT: from the request to its first token, medians",
    "tpot_ms": "TPOT: per token after the first, medians",
    "tokens_per_s": "Steady speed, medians: more is better",
    "peak_rss_mb": "Peak memory of the process, medians",
}
WORTH = 1.02
"""Ratios closer to 1 get no colour, however certain they are."""
UNFOLDED = 8
"""With more rows than this, only the first chart is seen at once."""


@dataclass(frozen=True)
class Beside:
    """What a row is compared with.

    Attributes:
        reference: name of that row.
        ratios: metric -> the reference's divided by this row's.
    """

    reference: str
    ratios: dict[str, Ratio]


def configurations(profile: Profile, rows: Sequence[Shown]) -> Section:
    """Bars of the metrics that matter most."""
    some = measured(rows)
    parts: list[Html] = []
    if len(some) > 1:
        beside = _beside(profile, some)
        if beside:
            parts += _explained(beside)
        charted = {
            metric: words
            for metric, words in CHARTS.items()
            if any(one.value(metric) is not None for one in some)
        }
        for number_, (metric, words) in enumerate(charted.items()):
            drawn = _chart(some, metric, words, beside)
            if len(some) > UNFOLDED:
                drawn = folded(words, [drawn], unfolded=number_ == 0)
            parts.append(drawn)
    return Section(
        "configurations",
        "Configurations compared",
        parts,
        "only one configuration was measured: give several bundles, or lists such as -t 1,4.",
    )


def _explained(beside: dict[int, Beside]) -> list[Html]:
    references = {one.reference for one in beside.values()}
    first = "its reference (the first bundle with the same settings, or the first row of that work)"
    if len(references) == 1:
        first = next(iter(references))
    words = (
        f"\N{MULTIPLICATION SIGN}: how many times as fast as {first}, or, of memory, as small. "
        "Each ratio is the median over rounds, in which all rows take turns; in parentheses, "
        "between which values noise leaves it."
    )
    return [element("h3", f"Ratios: {FASTER}"), element("p", words)]


def _beside(profile: Profile, rows: Sequence[Shown]) -> dict[int, Beside]:
    """Every row beside the first bundle's with the same settings, or else the first of its work."""
    found: dict[int, Beside] = {}
    places = {one.row.configuration: one for one in rows}
    for pair in ratios(profile, first_label(profile)):
        ours, theirs = places.get(pair.reference), places.get(pair.other)
        if ours is not None and theirs is not None:
            found.setdefault(theirs.index, Beside(ours.name, pair.ratios))
    firsts: dict[tuple[object, ...], Shown] = {}
    for one in rows:
        first = firsts.setdefault(_work(one), one)
        if first is not one and one.index not in found:
            found[one.index] = Beside(first.name, _ratios(first, one))
    return found


def _work(one: Shown) -> tuple[object, ...]:
    """What was to be done: ratios of times for different work would say nothing."""
    what = one.row.configuration
    return what.batch, what.source_tokens, what.new_tokens, what.text


def _ratios(first: Shown, other: Shown) -> dict[str, Ratio]:
    every = {
        metric: paired(
            over_rounds(by_round(other.row, metric)), over_rounds(by_round(first.row, metric))
        )
        for metric in COMPARED
    }
    return {metric: ratio for metric, ratio in every.items() if ratio is not None}


def _chart(rows: Sequence[Shown], metric: str, words: str, beside: dict[int, Beside]) -> Html:
    bars = []
    for one in rows:
        value = one.value(metric)
        if value is None:
            shown: str = f"{NOTHING} {one.row.missing.get(metric, 'not measured')}"
        else:
            shown = join([figure(value, one.index, metric, "p50"), f" {unit_of(metric)}"])
            ratio = beside[one.index].ratios.get(metric) if one.index in beside else None
            if ratio is not None:
                told = _ratio(ratio, one.index, metric, beside[one.index].reference)
                shown = join([shown, " ", told])
        segments = [] if value is None else [Segment(words, value, one.colour, metric)]
        bars.append(Bar(one.name, segments, shown, one.index))
    return chart(bars, f"{words}.", unit_of(metric))


def _ratio(ratio: Ratio, row: int, metric: str, reference: str) -> Html:
    kind = "good" if ratio.low > WORTH else "bad" if ratio.high < 1 / WORTH else "muted"
    kind = kind if ratio.trusted else "muted"
    between = f" ({number(ratio.low)}\N{EN DASH}{number(ratio.high)})"
    what = "as small" if metric == MEMORY else "as fast"
    return element(
        "span",
        figure(ratio.median, row, f"ratio[{metric}]"),
        "\N{MULTIPLICATION SIGN}",
        element("span", between, class_="muted") if len(ratio.values) > 1 else Html(),
        class_=kind,
        title=f"{number(ratio.median)} times {what} as {reference}, by {len(ratio.values)} rounds",
    )
