"""Memory, and how much of it decoding reads: the roofline."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.metrics import threads_of
from edgedec.runtime.profiling.record import Profile
from edgedec.runtime.report.bars import Bar, Segment, chart, legend
from edgedec.runtime.report.figures import figure, number
from edgedec.runtime.report.markup import Html, element, join
from edgedec.runtime.report.rows import Shown, measured
from edgedec.runtime.report.sections.section import Section

STEADY = {
    "steady_file_mb": ("mapped files, which the system can drop", 5),
    "steady_anonymous_mb": ("other memory", 0),
}
PEAK = "peak_rss_mb"
FRACTION, READ = "bandwidth_fraction", "read_mb_per_token"


def memory(rows: Sequence[Shown]) -> Section:
    """What stays resident, by kind, and the peak."""
    bars = [bar for one in measured(rows) for bar in _memory(one)]
    parts = []
    if bars:
        caption = (
            "Resident memory of the process after its last request. Medians over the rounds' "
            "processes."
        )
        parts = [chart(bars, caption, "MB", key=legend(STEADY.values(), mark="peak"))]
    return Section(
        "memory",
        "Memory",
        parts,
        "it is measured of processes that do nothing else, where the system tells: leave "
        "--in-process out.",
    )


def _memory(one: Shown) -> list[Bar]:
    values = {metric: one.value(metric) for metric in STEADY}
    peak = one.value(PEAK)
    segments = [
        Segment(STEADY[metric][0], value, STEADY[metric][1], metric)
        for metric, value in values.items()
        if value is not None
    ]
    if not segments and peak is None:
        return []
    shown: list[str] = [
        join([figure(value, one.index, metric, "p50"), f" MB {words}"])
        for metric, words in (("steady_rss_mb", "steady"), (PEAK, "peak"))
        if (value := one.value(metric)) is not None
    ]
    mark = None if peak is None else Segment("peak", peak, metric=PEAK)
    return [Bar(one.name, segments, _listed(shown), one.index, mark=mark)]


def _listed(words: Sequence[str]) -> Html:
    parts: list[str] = []
    for word in words:
        parts += [", ", word] if parts else [word]
    return join(parts)


def roofline(profile: Profile, rows: Sequence[Shown]) -> Section:
    """Bytes read per second against what the machine can read."""
    some = [one for one in measured(rows) if one.value(FRACTION) is not None]
    parts: list[Html] = []
    if some:
        bars = [_fraction(profile, one) for one in some]
        most = max([1.0, *(one.value(FRACTION) or 0.0 for one in some)])
        caption = (
            "Memory that decoding reads per second, as a part of what this machine was measured "
            "to read with as many threads (the whole width, or the mark). Close to all of it: "
            "only fewer bytes per token make it faster. More: weights stay in the cache."
        )
        parts = [chart(bars, caption, "of the bandwidth", most=most), _bandwidths(profile)]
    return Section(
        "roofline",
        "Roofline",
        parts,
        "bytes per token or the memory's bandwidth are not known.",
    )


def _fraction(profile: Profile, one: Shown) -> Bar:
    value = one.value(FRACTION) or 0.0
    shown: list[str] = [
        element(
            "data",
            f"{value:.1%}",
            value=value,
            data_row=one.index,
            data_metric=FRACTION,
            data_stat="p50",
        )
    ]
    read = one.value(READ)
    if read is not None:
        shown.append(join([figure(read, one.index, READ, "p50"), " MB per token"]))
    bandwidth = _bandwidth(profile, one)
    if bandwidth is not None:
        shown.append(f"{number(value * bandwidth)} of {number(bandwidth)} GB/s")
    mark = Segment("measured bandwidth", 1.0) if value > 1 else None
    segments = [Segment("read", value, one.colour, FRACTION)]
    return Bar(one.name, segments, _listed(shown), one.index, mark=mark)


def _bandwidth(profile: Profile, one: Shown) -> float | None:
    """Of the row's threads."""
    there = profile.environment
    return there.bandwidth_gb_s.get(str(threads_of(one.row.configuration, there)))


def _bandwidths(profile: Profile) -> Html:
    listed = "; ".join(
        f"{number(value)} GB/s with {threads} thread{'' if threads == '1' else 's'}"
        for threads, value in profile.environment.bandwidth_gb_s.items()
    )
    return element("p", f"Measured bandwidth: {listed or 'none'}.", class_="muted")
