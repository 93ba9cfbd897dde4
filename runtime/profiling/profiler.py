"""From a plan to a profile: measure here, keep what there is when asked to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from edgedec.errors import EdgedecError
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.profiling.collect import collect
from edgedec.runtime.profiling.environment import environment
from edgedec.runtime.profiling.facts import facts
from edgedec.runtime.profiling.plan import Measured, Plan
from edgedec.runtime.profiling.record import BundleFacts, Environment, Profile
from edgedec.runtime.profiling.turns import measure

Events = Iterator[Measured]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """Where a plan is carried out: this machine, or another one.

    Attributes:
        environment: of it.
        facts: of the bundles that can be opened; others fail their rows.
        events: as they happen.
    """

    environment: Environment
    facts: dict[str, BundleFacts]
    events: Events


@dataclass(frozen=True)
class Outcome:
    """What came of a plan.

    Attributes:
        profile: complete or not.
        traces: row -> Chrome trace events of its request with records of operators.
        error: what ended it early, such as a connection; None also after an interruption.
    """

    profile: Profile
    traces: dict[int, tuple[dict[str, object], ...]]
    error: EdgedecError | None = None


def here(plan: Plan, *, note: Callable[[str], None] | None = None) -> Site:
    """This machine."""
    threads = {configuration.threads for configuration in plan.configurations}
    return Site(environment(threads), facts_of(plan.bundles), measure(plan, note=note))


def facts_of(bundles: Mapping[str, str]) -> dict[str, BundleFacts]:
    """Facts of the bundles that can be opened."""
    found = {}
    for label, folder in bundles.items():
        with suppress(EdgedecError):  # the worker that tries to load it says why
            found[label] = facts(open_bundle(Path(folder)))
    return found


def profile(plan: Plan, site: Site, *, progress: Callable[[int], None] | None = None) -> Outcome:
    """Carry out a plan; what ends it early leaves what was measured.

    Args:
        plan: of the sweep.
        site: where.
        progress: is told how many turns are over.

    Raises:
        EdgedecError: it ended before anything was measured.
    """
    events: list[Measured] = []
    complete, failure = False, None
    try:
        # Closed at once when interrupted: no process may outlive this.
        with closing(site.events) as coming:  # type: ignore[type-var]  # generators can be closed
            for event in coming:
                events.append(event)
                logger.info("turn %d is over", len(events))
                if progress is not None:
                    progress(len(events))
        complete = True
    except KeyboardInterrupt:
        pass
    except EdgedecError as error:
        if not events:
            raise
        failure = error
    return Outcome(
        collect(plan, site.environment, site.facts, events, complete),
        {event.row: event.events for event in events if event.events},
        failure,
    )
