"""Chrome traces: what a viewer needs to show spans and operators inside of each other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.errors import InputError
from edgedec.runtime.profiling.records import Node, Run
from edgedec.runtime.profiling.trace import (
    Event,
    check_events,
    operator_events,
    span_events,
    write_trace,
)
from edgedec.runtime.schema import SchemaError
from edgedec.runtime.spans import Kind, Span

Pairs = list[tuple[Span, Run]]
nanoseconds = st.integers(1, 10**6)


def spanned(kind: Kind, name: str, begin: int, end: int) -> Span:
    """A span between two nanoseconds."""
    return Span(kind, name, begin / 1e9, end / 1e9 - begin / 1e9)


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Span], Pairs]:
    """A request as it is taken, with records of its runs by a clock of their own."""
    began = now = draw(st.integers(0, 10**15))
    other = draw(st.integers(0, 10**9))
    spans: list[Span] = []
    pairs: Pairs = []
    for name in ("tokenize", "encode", "first step", "step", "step"):
        phase = now
        for _ in range(draw(st.integers(0, 2))):
            now += draw(nanoseconds)
            run, began_us, made = now, other, []
            for us in draw(st.lists(st.integers(0, 50), max_size=4)):
                made.append(Node("head", "MatMul", "1x2", other, us))
                other += us
            # What is recorded is a little shorter than what we see of it.
            now += 1000 * (other - began_us) + draw(nanoseconds)
            spans.append(spanned("run", "decoder", run, now))
            pairs.append((spans[-1], Run(began_us, other - began_us, tuple(made))))
            other += draw(st.integers(0, 100))
        now += draw(nanoseconds)
        spans.append(spanned("phase", name, phase, now))
    spans.append(spanned("request", "request", began, now + draw(nanoseconds)))
    return spans, pairs


def events_of(spans: list[Span], pairs: Pairs) -> list[Event]:
    """Of a thread."""
    zero = min(span.begin for span in spans)
    return [
        *span_events(spans, pid=1, tid=7, zero=zero),
        *operator_events(pairs, pid=1, tid=7, zero=zero),
    ]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write to again and again."""
    return tmp_path_factory.mktemp("traces") / "trace.json"


def written(path: Path, *processes: tuple[str, list[Event]]) -> list[dict[str, Any]]:
    """The events of a trace, as a viewer reads them."""
    write_trace(path, processes)
    trace = json.loads(path.read_text(encoding="utf-8"))
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    events: list[dict[str, Any]] = trace["traceEvents"]
    return events


def interval(event: dict[str, Any]) -> tuple[int, int]:
    """Nanoseconds: viewers count in these, some round to them, others cut off."""
    ts, dur = (int(event[key] * 1000) for key in ("ts", "dur"))
    assert (ts, dur) == tuple(round(event[key] * 1000) for key in ("ts", "dur"))
    return ts, ts + dur


def check_thread(events: list[dict[str, Any]]) -> None:
    """Hold the events of one thread against the format: sorted, inside of each other or apart."""
    around: list[int] = []
    before = 0
    for event in events:
        begin, end = interval(event)
        assert event["ph"] == "X"
        assert before <= begin <= end
        before = begin
        while around and around[-1] <= begin:
            around.pop()
        assert not around or end <= around[-1], event
        around.append(end)


@given(made=requests())
def test_events_lie_inside_of_each_other(made: tuple[list[Span], Pairs], target: Path) -> None:
    spans, pairs = made
    made_of = events_of(spans, pairs)
    check_events(made_of)
    events = written(target, ("x", made_of))
    shown = [event for event in events if event["ph"] != "M"]
    check_thread(shown)
    assert len(shown) == len(spans) + sum(len(run.nodes) for _, run in pairs)
    runs = [interval(event) for event in shown if event["cat"] == "run"]
    nodes = [event for event in shown if event["cat"] == "operator"]
    for event in nodes:
        begin, end = interval(event)
        assert any(first <= begin and end <= last for first, last in runs)
    recorded = sorted(node.us for _, run in pairs for node in run.nodes)
    assert sorted(event["dur"] for event in nodes) == pytest.approx(recorded, abs=1e-6)


@given(began=st.floats(0, 1e7), lengths=st.lists(st.floats(0, 1e-3), min_size=1))
def test_phases_touch_but_do_not_overlap(began: float, lengths: list[float]) -> None:
    spans, last = [], began
    for length in lengths:
        now = last + length
        spans.append(Span("phase", "step", last, now - last))
        last = now
    check_thread(span_events(spans, pid=1, tid=1, zero=began))


@given(requests())
def test_spans_keep_their_times(made: tuple[list[Span], Pairs]) -> None:
    spans, _ = made
    events = span_events(spans, pid=1, tid=2, zero=spans[0].begin - 1)
    for span, event in zip(spans, events, strict=True):
        assert event["ts"] == pytest.approx(1e6 * (span.begin - spans[0].begin + 1), abs=0.5)
        assert event["dur"] == pytest.approx(1e6 * span.seconds, abs=0.5)
        assert (event["name"], event["cat"]) == (span.name, span.kind)


def test_steps_are_numbered() -> None:
    names = ["encode", "first step", "step", "step", "encode", "first step", "step"]
    spans = [spanned("phase", name, 10 * i, 10 * i + 9) for i, name in enumerate(names)]
    events = span_events(spans, pid=1, tid=1, zero=0.0)
    assert [event["args"].get("step") for event in events] == [None, 0, 1, 2, None, 0, 1]


def test_records_that_reach_out_are_cut() -> None:
    """Clocks are read one after another, and one of them in whole microseconds."""
    span = spanned("run", "decoder", 5_000, 14_000)
    run = Run(100, 10, (Node("a", "Add", "", 100, 5), Node("b", "Mul", "", 105, 5)))
    events = operator_events([(span, run)], pid=1, tid=1, zero=0.0)
    assert [interval(event) for event in events] == [(5_000, 9_500), (9_500, 14_000)]


def test_processes_have_names_and_numbers_of_their_own(target: Path) -> None:
    spans = [spanned("request", "request", 0, 5_000)]
    own = events_of(spans, [])
    events = written(target, ("g2p -s 8 <b>", own), ("é", own))
    named = {
        event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"
    }
    assert named == {1: "g2p -s 8 <b>", 2: "é"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert threads == {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} == {(1, 7), (2, 7)}


@pytest.mark.parametrize(
    "change",
    [
        {"cat": "other"},
        {"ph": "B"},
        {"ts": "0"},
        {"dur": float("inf")},
        {"tid": None},
        {"tid": [1]},
        {"args": {"step": None}},
        {"args": []},
        {"more": 1},
    ],
    ids=str,
)
def test_events_of_others_are_like_ours(change: dict[str, Any]) -> None:
    (event,) = span_events([spanned("run", "decoder", 0, 5)], pid=1, tid=1, zero=0.0)
    check_events([event])
    with pytest.raises(SchemaError, match=r"events\.1"):
        check_events([event, event | change])
    for key in event:
        with pytest.raises(SchemaError, match=f"events.0.{key} is missing"):
            check_events([{other: event[other] for other in event if other != key}])


def test_a_trace_is_written_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_trace(path, [("x", [{"ts": 0, "dur": 0, "cat": "run", "tid": 1, "args": object()}])])
    assert path.read_text() == "old"
    written(path, ("x", []))
    assert [file.name for file in tmp_path.iterdir()] == ["trace.json"]


def test_what_is_no_file_stays_what_it_is() -> None:
    write_trace(os.devnull, [])
    assert not Path(os.devnull).is_file()


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot write .*No such file"):
        write_trace(tmp_path / "nowhere" / "trace.json", [])
    with pytest.raises(InputError, match="Is a directory"):
        write_trace(tmp_path, [])
