"""Spans and records of operators as Chrome Trace Event JSON, which ui.perfetto.dev opens.

Format: "Trace Event Format" of the Chromium project; complete events (``ph: X``), whose ``ts`` and
``dur`` are microseconds. Events of one thread must lie inside each other or apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgedec.runtime.profiling.records import Run
from edgedec.runtime.schema import decode
from edgedec.runtime.spans import Span
from edgedec.runtime.text_file import write_text

Event = dict[str, Any]
DEPTH = {"request": 0, "phase": 1, "run": 2, "work": 2, "operator": 3}
"""Kind of event -> how many others it lies inside of."""


@dataclass(frozen=True)
class Complete:
    """An event as `span_events` and `operator_events` make it."""

    name: str
    cat: Literal["request", "phase", "run", "work", "operator"]
    ph: Literal["X"]
    ts: float
    dur: float
    pid: int
    tid: int
    args: dict[str, int | str]


def check_events(events: Iterable[Event]) -> None:
    """Refuse events of somebody else that are not like ours.

    Raises:
        SchemaError: a key is missing or unknown, or a value has the wrong type.
    """
    for index, event in enumerate(events):
        decode(Complete, event, f"events.{index}")


def span_events(spans: Iterable[Span], *, pid: int, tid: int, zero: float) -> list[Event]:
    """Spans as events.

    Args:
        spans: of a generator; their names stay, and steps get numbers.
        pid: of the process,
        tid: and of the thread that they are shown as.
        zero: what ``ts`` counts from, of `time.perf_counter`; no span begins before.
    """
    found, steps = [], 0
    for span in spans:
        begin, end = _nanoseconds(span.begin, zero), _nanoseconds(span.begin + span.seconds, zero)
        args: Event = {}
        if span.kind == "phase" and span.name in {"first step", "step"}:
            steps = steps + 1 if span.name == "step" else 0
            args = {"step": steps}
        found.append(_event(span.name, span.kind, begin, end, pid, tid, args))
    return found


def operator_events(
    pairs: Iterable[tuple[Span, Run]], *, pid: int, tid: int, zero: float
) -> list[Event]:
    """Operators as events inside of the runs that they belong to.

    ONNX Runtime's clock starts when a session does. A recorded run lies inside of our span of it,
    which is a few microseconds longer: in the middle, up to half of these.

    Args:
        pairs: each run as we saw it, and as it was recorded.
        pid: as in `span_events`, and so are the others.
        tid: as there.
        zero: as there.
    """
    found = []
    for span, run in pairs:
        first, last = _nanoseconds(span.begin, zero), _nanoseconds(span.begin + span.seconds, zero)
        shift = (first + last - 1000 * run.us) // 2 - 1000 * run.begin_us
        for node in run.nodes:
            begin = 1000 * node.begin_us + shift
            # Both clocks are read in turns, and one of them in whole microseconds.
            begin, end = (min(max(time, first), last) for time in (begin, begin + 1000 * node.us))
            args = {"operator": node.operator, "shapes": node.shapes}
            found.append(_event(node.name, "operator", begin, end, pid, tid, args))
    return found


def write_trace(path: str | Path, processes: Sequence[tuple[str, Sequence[Event]]]) -> None:
    """Write a trace; all of it or nothing.

    Args:
        path: of the file.
        processes: label and events of each; shown below each other, under numbers of their own.

    Raises:
        InputError: the file cannot be written.
    """
    events = [
        event
        for number, (label, own) in enumerate(processes, start=1)
        for event in _process(number, label, own)
    ]
    text = json.dumps(
        {"traceEvents": events, "displayTimeUnit": "ms"}, ensure_ascii=False, separators=(",", ":")
    )
    write_text(path, text)


def _process(number: int, label: str, events: Sequence[Event]) -> Iterator[Event]:
    yield _metadata("process_name", number, 0, {"name": label})
    yield _metadata("process_sort_index", number, 0, {"sort_index": number})
    for tid in dict.fromkeys(event["tid"] for event in events):
        yield _metadata("thread_name", number, tid, {"name": "edgedec"})
    # Parents before their children.
    for event in sorted(events, key=lambda one: (one["ts"], -one["dur"], DEPTH[one["cat"]])):
        yield {**event, "pid": number}


def _metadata(name: str, pid: int, tid: int, args: Event) -> Event:
    return {"name": name, "ph": "M", "pid": pid, "tid": tid, "args": args}


def _event(name: str, kind: str, begin: int, end: int, pid: int, tid: int, args: Event) -> Event:
    return {
        "name": name,
        "cat": kind,
        "ph": "X",
        "ts": _microseconds(begin),
        "dur": _microseconds(end - begin),
        "pid": pid,
        "tid": tid,
        "args": args,
    }


def _nanoseconds(time: float, zero: float) -> int:
    return max(round((time - zero) * 1e9), 0)


def _microseconds(nanoseconds: int) -> float:
    """A number that is these nanoseconds to readers that round and to readers that truncate.

    One that is a nanosecond off makes an event reach out of its parent, and viewers drop it.
    """
    found = nanoseconds / 1000
    while int(found * 1000) < nanoseconds:
        found = math.nextafter(found, math.inf)
    return found
