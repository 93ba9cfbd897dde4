"""What is to be measured: configurations, bundles and effort, as JSON for other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgedec.runtime.profiling.record import Configuration, Effort, Operators, Turn


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        bundles: label -> folder.
        configurations: rows, in order; a round measures all of them in this order.
        effort: how much.
        inputs: lines of the text that configurations with ``text`` read.
        operators: also run every configuration once with records of operators,
        trace: and keep these records for a trace.
    """

    bundles: dict[str, str]
    configurations: tuple[Configuration, ...]
    effort: Effort
    inputs: tuple[str, ...] = ()
    operators: bool = False
    trace: bool = False


@dataclass(frozen=True)
class Job:
    """One turn: what a worker process is asked to do.

    Attributes:
        configuration: to measure.
        folder: of the bundle, or of the checkpoint for a baseline.
        kind: ``latency``, or ``operators``: one request with records of operators.
        round: number of the turn.
        repetitions: requests that count.
        first: number of the first of them among all of this configuration, which chooses ids.
        warmup: requests before.
        seed: of synthetic inputs.
        inputs: lines of text, from that of the first request on; none for synthetic inputs.
        started: `time.monotonic` just before the process was started; None: it had other work.
        trace: also return events for a trace.
    """

    configuration: Configuration
    folder: str
    kind: Literal["latency", "operators"]
    round: int
    repetitions: int
    first: int
    warmup: int
    seed: int
    inputs: tuple[str, ...] = ()
    started: float | None = None
    trace: bool = False


@dataclass(frozen=True)
class Measured:
    """An event: a turn of a row is over.

    Attributes:
        row: index of its configuration.
        turn: what was measured; None of an operators' run or a failure.
        operators: of an operators' run,
        events: with Chrome trace events of its request, if asked for.
        operators_error: why an operators' run failed, in a sentence; the row's turns stand.
        error: why the row failed, in a sentence: there will be no more events of it.
    """

    row: int
    turn: Turn | None = None
    operators: Operators | None = None
    events: tuple[dict[str, Any], ...] = ()
    operators_error: str | None = None
    error: str | None = None
