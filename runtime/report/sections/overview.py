"""The top of the page: what was measured where, whether it can be trusted, the main figures."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.record import Profile, Summary
from edgedec.runtime.report.figures import NOTHING, counted, figure, number, stat_of, unit_of
from edgedec.runtime.report.markup import Html, element
from edgedec.runtime.report.page import grid
from edgedec.runtime.report.rows import Shown, in_common

HEADLINES = {
    "ttft_ms": "To the first token",
    "tpot_ms": "Per further token",
    "tokens_per_s": "Steady speed",
    "e2e_ms": "End to end",
    "peak_rss_mb": "Peak memory",
    "cold_start_ms": "Cold start",
}
SHORT = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "e2e"}


def title(profile: Profile) -> str:
    """What the page is about."""
    labels = list(dict.fromkeys(row.configuration.bundle for row in profile.rows))
    if len(labels) > 3:
        return f"Profile of {labels[0]} and {len(labels) - 1} others"
    return f"Profile of {' and '.join(labels) or 'nothing'}"


def overview(profile: Profile, rows: Sequence[Shown]) -> list[Html]:
    """All that stands above the first section."""
    machine = profile.environment
    where = f"{machine.cpu}, {counted(machine.cores, 'core')}, {machine.system}"
    when = f"{machine.date}, {profile.producer}"
    parts = [
        element("p", where, class_="lead"),
        element("p", f"{_effort(profile)}; {when}", class_="lead"),
    ]
    common = in_common(profile)
    if common:
        every = "Measured with" if len(rows) == 1 else "All rows"
        parts.append(element("p", f"{every}: {common}.", class_="lead"))
    parts += _banners(profile, rows)
    if len(rows) == 1 and rows[0].row.error is None:
        parts.append(_cards(rows[0]))
    elif rows:
        parts.append(_table(rows))
    return parts


def _effort(profile: Profile) -> str:
    effort = profile.effort
    rounds = counted(effort.rounds, "round")
    how = "a fresh process each" if effort.fresh else "all in one process"
    return f"{counted(effort.repetitions, 'request')} per row in {rounds}, {how}"


def _banners(profile: Profile, rows: Sequence[Shown]) -> list[Html]:
    found = []
    if not profile.complete:
        words = "The measurement was interrupted: these are the rounds that it had finished."
        found.append(element("p", words, class_="note bad", role="note"))
    failed = [one for one in rows if one.row.error is not None]
    if failed:
        lines = [element("li", f"{one.name}: {one.row.error}") for one in failed]
        lead = f"{len(failed):,} of {counted(len(rows), 'row')} failed."
        found.append(
            element("div", lead, element("ul", *lines), class_="note bad failed", role="note")
        )
    warned = [one for one in rows if one.row.warnings]
    if warned:
        link = element("a", "Read why.", href="#trust")
        which = "This row" if len(rows) == 1 else f"{len(warned):,} of {len(rows):,} rows (*)"
        verb = "deserves" if len(warned) == 1 else "deserve"
        words = element("p", f"{which} {verb} less trust. ", link, class_="note", role="note")
        found.append(words)
    return found


def _cards(one: Shown) -> Html:
    cards = []
    for metric, words in HEADLINES.items():
        summary = one.row.metrics.get(metric)
        short = f" ({SHORT[metric]})" if metric in SHORT else ""
        if summary is None:
            reason = one.row.missing.get(metric, "not measured")
            value: list[str] = [element("span", NOTHING, class_="value"), _more(reason)]
        else:
            figure_ = stat_of(summary, one.index, metric, "p50")
            value = [
                element("span", figure_, class_="value"),
                " ",
                element("span", unit_of(metric), class_="unit"),
                _spread(summary, one.index, metric),
            ]
        cards.append(element("li", element("span", words + short, class_="what"), *value))
    return element("ul", *cards, class_="cards")


def _spread(summary: Summary, row: int, metric: str) -> Html:
    if summary.sd is None:
        return _more("of a single sample")
    sd = stat_of(summary, row, metric, "sd")
    p90 = figure(summary.p90, row, metric, "p90")
    return element("span", "\N{PLUS-MINUS SIGN} ", sd, ", p90 ", p90, class_="more")


def _more(words: str) -> Html:
    return element("span", words, class_="more")


def _table(rows: Sequence[Shown]) -> Html:
    columns = (
        f"{SHORT.get(metric, words)}, {unit_of(metric)}" for metric, words in HEADLINES.items()
    )
    caption = (
        "Medians \N{PLUS-MINUS SIGN} standard deviation. TTFT: to the first token, TPOT: per "
        "further token, e2e: end to end."
    )
    return grid(caption, ["Configuration", *columns], map(_line, rows), "headline")


def _line(one: Shown) -> Html:
    star = " *" if one.row.warnings else ""
    name = element("th", one.name + star, scope="row")
    if one.row.error is not None:
        words = element("td", "failed", class_="text bad", colspan=len(HEADLINES))
        return element("tr", name, words)
    return element("tr", name, *(_cell(one, metric) for metric in HEADLINES))


def _cell(one: Shown, metric: str) -> Html:
    summary = one.row.metrics.get(metric)
    if summary is None:
        return element("td", NOTHING, title=one.row.missing.get(metric, "not measured"))
    value = stat_of(summary, one.index, metric, "p50")
    if summary.sd is None:
        return element("td", value)
    deviation = stat_of(summary, one.index, metric, "sd")
    sd = element("span", " \N{PLUS-MINUS SIGN} ", deviation, class_="sd")
    return element("td", value, sd, title=f"p90 {number(summary.p90)}, p99 {number(summary.p99)}")
