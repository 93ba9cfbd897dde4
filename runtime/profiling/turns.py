"""Carries out a plan on this machine: every turn in a process of its own, rows take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgedec.runtime.profiling import file_cache
from edgedec.runtime.profiling.child import Child, Failure
from edgedec.runtime.profiling.plan import Job, Measured, Plan
from edgedec.runtime.profiling.record import Configuration, Effort, FileCache, Operators, Turn
from edgedec.runtime.profiling.request import usable_lines
from edgedec.runtime.schema import decode

MODULES = {
    "edgedec": "edgedec.runtime.profiling.worker",
    "transformers": "edgedec.runtime.profiling.peers.transformers",
}
"""Program of a row -> its worker."""
LONGEST_ERROR = 2000


def measure(plan: Plan, *, note: Callable[[str], None] | None = None) -> Iterator[Measured]:
    """Measure all rows of a plan, round by round.

    A row that fails yields one event with the reason, and its later turns are left out. Where only
    the run with records of operators fails, its event says why, and the row has not failed.

    Args:
        plan: what to measure.
        note: is told what a user should know, in sentences.

    Returns:
        A generator of events. Closing it, or KeyboardInterrupt inside of it, ends the process that
        measures at that moment.

    Raises:
        InputError: rows read a text, and that has no line with anything on it.
    """
    texts = any(configuration.source_tokens is None for configuration in plan.configurations)
    lines = usable_lines(plan.inputs, note) if texts else []
    return _events(plan, lines)


def count_turns(plan: Plan) -> int:
    """The events that `measure` yields if no row fails."""
    rounds = len(shares(plan.effort))
    return rounds * len(plan.configurations) + len(with_operators(plan))


def _events(plan: Plan, lines: list[str]) -> Iterator[Measured]:
    failed: set[int] = set()
    with ExitStack() as stack:
        kept: dict[str, Child] = {}

        def answer(row: int, job: Job) -> Measured:
            configuration = job.configuration
            module = MODULES[configuration.program]
            if plan.effort.fresh or job.kind == "operators":
                return _fresh(row, module, job)
            child = kept.get(module)
            if child is None or not child.alive:
                child = kept[module] = stack.enter_context(closing(Child(module)))
            return _measured(row, job, child.ask(job), None)

        for job, row in jobs_of(plan, lines):
            if row in failed:
                continue
            try:
                event = answer(row, job)
            except Failure as failure:
                event = _failed(row, job, str(failure))
            if event.error is not None:
                failed.add(row)
            yield event


def jobs_of(plan: Plan, lines: list[str]) -> Iterator[tuple[Job, int]]:
    """Jobs with their rows, in order.

    Args:
        plan: what to measure.
        lines: of its text that are not blank.
    """
    first = 0
    for number, repetitions in enumerate(shares(plan.effort)):
        for row, configuration in enumerate(plan.configurations):
            yield (
                Job(
                    configuration=configuration,
                    folder=plan.bundles[configuration.bundle],
                    kind="latency",
                    round=number,
                    repetitions=repetitions,
                    first=first,
                    warmup=plan.effort.warmup,
                    seed=plan.effort.seed,
                    inputs=_window(configuration, lines, first, repetitions),
                ),
                row,
            )
        first += repetitions
    for row in with_operators(plan):
        configuration = plan.configurations[row]
        yield (
            Job(
                configuration=configuration,
                folder=plan.bundles[configuration.bundle],
                kind="operators",
                round=0,
                repetitions=1,
                first=0,
                warmup=1,
                seed=plan.effort.seed,
                inputs=_window(configuration, lines, 0, 1),
                trace=plan.trace,
            ),
            row,
        )


def with_operators(plan: Plan) -> list[int]:
    """Rows that are run with records of operators."""
    return [
        row
        for row, configuration in enumerate(plan.configurations)
        if plan.operators and configuration.program == "edgedec"
    ]


def shares(effort: Effort) -> list[int]:
    """Repetitions of every round; a round without any would be a start for nothing."""
    rounds = max(1, min(effort.rounds, effort.repetitions))
    each, more = divmod(effort.repetitions, rounds)
    return [each + (number < more) for number in range(rounds)]


def _window(
    configuration: Configuration, lines: list[str], first: int, repetitions: int
) -> tuple[str, ...]:
    """The lines that a turn reads: a long text would make every start longer."""
    if configuration.source_tokens is not None:
        return ()
    begin, count = first * configuration.batch, max(repetitions, 1) * configuration.batch
    return tuple(lines[(begin + index) % len(lines)] for index in range(count))


def _fresh(row: int, module: str, job: Job) -> Measured:
    """Do a job in a process of its own; its files are out of memory and in it in turns."""
    state: FileCache | None = None
    if job.kind == "latency":
        prepare = file_cache.warm if job.round % 2 else file_cache.cool
        state = prepare(Path(job.folder))
    with closing(Child(module)) as child:
        return _measured(row, job, child.ask(replace(job, started=child.started)), state)


def _failed(row: int, job: Job, error: str) -> Measured:
    """The event of a job that failed; exceptions of others may be as long as they like."""
    error = error[:LONGEST_ERROR]
    if job.kind == "operators":
        return Measured(row, operators_error=error)
    return Measured(row, error=error)


def _measured(row: int, job: Job, answer: dict[str, Any], state: FileCache | None) -> Measured:
    """The event that a worker's answer is."""
    if "error" in answer:
        return _failed(row, job, str(answer["error"]))
    if "turn" in answer:
        turn = decode(Turn, answer["turn"])
        return Measured(row, turn=replace(turn, file_cache=state))
    return Measured(
        row,
        operators=decode(Operators, answer["operators"]),
        events=tuple(answer.get("events", ())),
    )
