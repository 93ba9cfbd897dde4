"""A profile from the events of a sweep."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from edgedec.runtime.profiling.conditions import warnings_of
from edgedec.runtime.profiling.metrics import Context, metrics_of
from edgedec.runtime.profiling.plan import Measured, Plan
from edgedec.runtime.profiling.record import (
    SCHEMA_VERSION,
    BundleFacts,
    Configuration,
    Effort,
    Environment,
    Profile,
    Row,
    Summary,
)
from edgedec.runtime.profiling.summary import summarize

OPERATORS = ("operators", "cross_kv_ms")
"""What only the run with records of operators gives: in a profile, and as a metric."""


def collect(
    plan: Plan,
    environment: Environment,
    facts: dict[str, BundleFacts],
    events: Iterable[Measured],
    complete: bool,
) -> Profile:
    """Put together what was measured; rows without any event have no metrics.

    Args:
        plan: that was carried out.
        environment: where.
        facts: of the bundles that could be opened, by label.
        events: in any order.
        complete: whether the sweep came to its end.
    """
    by_row: list[list[Measured]] = [[] for _ in plan.configurations]
    for event in events:
        by_row[event.row].append(event)
    return Profile(
        schema_version=SCHEMA_VERSION,
        producer=f"edgedec {version('edgedec')}",
        complete=complete,
        environment=environment,
        effort=plan.effort,
        bundles=facts,
        rows=tuple(
            _row(configuration, found, facts, environment, plan.effort)
            for configuration, found in zip(plan.configurations, by_row, strict=True)
        ),
    )


def _row(
    configuration: Configuration,
    events: list[Measured],
    facts: dict[str, BundleFacts],
    environment: Environment,
    effort: Effort,
) -> Row:
    turns = sorted(
        (event.turn for event in events if event.turn is not None), key=lambda turn: turn.round
    )
    error = next((event.error for event in events if event.error is not None), None)
    context = Context(
        configuration=configuration,
        turns=turns,
        operators=next((event.operators for event in events if event.operators), None),
        facts=facts.get(configuration.bundle),
        environment=environment,
    )
    metrics: dict[str, Summary | None] = {}
    missing: dict[str, str] = {}
    for name, metric in metrics_of(context).items():
        values = metric.values(context)
        metrics[name] = summarize(values) if values else None
        if values:
            continue
        if turns:
            missing[name] = metric.why(environment)
        else:
            missing[name] = "the row failed" if error else "the sweep was interrupted before"
    reason = next((event.operators_error for event in events if event.operators_error), None)
    if reason is not None:
        missing |= dict.fromkeys(OPERATORS, f"the run with records failed ({reason.rstrip('.')})")
    return Row(
        configuration=configuration,
        error=error,
        turns=tuple(turns),
        operators=context.operators,
        metrics=metrics,
        missing=missing,
        warnings=warnings_of(turns, environment, effort) if turns else (),
    )
