"""Where the time of a request goes, and of a start."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.record import Sample, Turn
from edgedec.runtime.profiling.summary import median
from edgedec.runtime.report.bars import Bar, Segment, chart, legend
from edgedec.runtime.report.figures import counted, figure, number
from edgedec.runtime.report.markup import Html, join
from edgedec.runtime.report.rows import Shown, measured
from edgedec.runtime.report.sections.section import Section, per_row

PHASES = {
    "tokenize": 5,
    "prepare": 4,
    "encode": 0,
    "first step": 1,
    "steps": 2,
    "detokenize": 6,
    "to the first token": 1,
    "further tokens": 2,
    "other": 3,
}
"""Phases and their colours."""
STARTS = {"imports": 5, "load": 0, "first token": 1}
INSIDE = 3
"""Colour of what runs inside of steps."""
REST = 0.002
"""Less than this part of a request is not worth a line."""

Phase = tuple[str, float]


def phases(sample: Sample) -> list[Phase]:
    """What a request consists of, in order; they add up to its time.

    A baseline only tells when tokens were known.
    """
    if sample.first_step_ms is None:
        if not sample.token_ms:
            return [("other", sample.e2e_ms)]
        first = sample.token_ms[0]
        return [("to the first token", first), ("further tokens", sample.e2e_ms - first)]
    steps = sample.steps_ms
    if steps is None:
        steps = sample.token_ms[-1] - sample.token_ms[0]
    known: list[tuple[str, float | None]] = [
        ("tokenize", sample.tokenize_ms),
        ("prepare", sample.prepare_ms),
        ("encode", sample.encode_ms),
        ("first step", sample.first_step_ms),
        ("steps", steps),
        ("detokenize", sample.detokenize_ms),
    ]
    found = [(name, value) for name, value in known if value]
    rest = sample.e2e_ms - sum(value for _, value in found)
    return [*found, ("other", rest)] if rest > REST * sample.e2e_ms else found


def latency(rows: Sequence[Shown]) -> Section:
    """The median request of each row: phases beside each other, then one below the other."""
    some = [(one, one.middle) for one in measured(rows)]
    told = [(one, sample) for one, sample in some if sample is not None]
    parts = []
    if len(told) > 1:
        used = {name for _, sample in told for name, _ in phases(sample)}
        key = legend([(name, colour) for name, colour in PHASES.items() if name in used])
        parts.append(_beside(told, key))
    parts += per_row([one for one, _ in told], _waterfall, of=rows)
    return Section("latency", "Where the time goes", parts, "no request was measured.")


def _beside(told: Sequence[tuple[Shown, Sample]], key: Html) -> Html:
    bars = [
        Bar(one.name, _segments(phases(sample)), f"{number(sample.e2e_ms)} ms", one.index)
        for one, sample in told
    ]
    return chart(bars, "The median request of each configuration, by phases.", "ms", key=key)


def _segments(found: Sequence[Phase]) -> list[Segment]:
    return [Segment(name, value, PHASES[name], name) for name, value in found]


def _waterfall(one: Shown) -> list[Html]:
    sample = one.middle
    if sample is None:
        return []
    bars, at = [], 0.0
    for name, value in phases(sample):
        shown = _shown(value, sample, one.index, f"phase[{name}]")
        segment = Segment(name, value, PHASES[name], name)
        bars.append(Bar(_name(name, sample), [segment], shown, one.index, start=at))
        if name == "steps":
            bars += _inside(sample, value, at, one.index)
        at += value
    tokens = counted(sample.new_tokens, "token")
    caption = (
        f"The request in the middle, of round {sample.round + 1}: "
        f"{number(sample.e2e_ms)} ms for {tokens}."
    )
    return [chart(bars, caption, "ms", most=sample.e2e_ms)]


def _inside(sample: Sample, steps: float, at: float, row: int) -> list[Bar]:
    """What ran in the steps: sums, which begin where steps begin."""
    inside = [*sample.runs_ms.items()]
    inside += [
        (words, value)
        for words, value in (("depth policy", sample.plan_ms), ("search", sample.search_ms))
        if value
    ]
    rest = steps - sum(value for _, value in inside)
    if inside:
        inside.append(("around the graphs", rest))
    return [
        Bar(
            f"of these, {name}",
            [Segment(name, value, INSIDE)],
            _shown(value, sample, row, f"inside[{name}]"),
            row,
            start=at,
            inner=True,
        )
        for name, value in inside
        if value > REST * sample.e2e_ms
    ]


def _name(phase: str, sample: Sample) -> str:
    steps = sample.steps if sample.steps is not None else len(sample.token_ms) - 1
    return counted(steps, "further step") if phase == "steps" else phase


def _shown(value: float, sample: Sample, row: int, name: str) -> Html:
    share = f" ms, {value / sample.e2e_ms:.1%}" if sample.e2e_ms else " ms"
    return join([figure(value, row, name), share])


def starts(rows: Sequence[Shown]) -> Section:
    """From the start of a process to its first token, with cold and with warm files."""
    bars = [bar for one in measured(rows) for bar in _starts(one)]
    parts = []
    if bars:
        caption = (
            "The process in the middle of each kind. Cold: the bundle's files had to be read from "
            "the disk; warm: they were in memory."
        )
        parts = [chart(bars, caption, "ms", key=legend(STARTS.items()))]
    return Section(
        "starts",
        "Starting up",
        parts,
        "no process was started for it: leave --in-process out.",
    )


def _starts(one: Shown) -> list[Bar]:
    bars = []
    kinds = {"cold": "cold files", "warm": "warm files", None: "files cold or warm"}
    for cache, words in kinds.items():
        turns = [turn for turn in one.row.turns if turn.file_cache == cache]
        times = [turn.start_ms for turn in turns if turn.start_ms is not None]
        if not times:
            continue
        usual = median(times)
        turn = min(
            (turn for turn in turns if turn.start_ms is not None),
            key=lambda turn: abs((turn.start_ms or 0) - usual),
        )
        start = turn.start_ms or 0.0
        metric = "cold_start_ms" if cache == "cold" else "warm_start_ms"
        summary = one.row.metrics.get(metric) if cache else None
        shown: str = f"{number(start)} ms"
        if summary is not None:
            median_ = figure(summary.p50, one.index, metric, "p50")
            shown = join([shown, f", median of {summary.n:,}: ", median_])
        bars.append(Bar(f"{one.name}, {words}", _start(turn, start), shown, one.index))
    return bars


def _start(turn: Turn, start: float) -> list[Segment]:
    imports = turn.imports_ms or 0.0
    rest = max(0.0, start - imports - turn.load_ms)
    values = {"imports": imports, "load": turn.load_ms, "first token": rest}
    return [Segment(name, values[name], colour, name) for name, colour in STARTS.items()]
