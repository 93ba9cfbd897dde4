"""Plans and jobs with a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from edgedec.runtime.profiling.plan import Job, Plan
from edgedec.runtime.profiling.record import Configuration, Effort


def row(
    bundle: str = "g2p",
    *,
    source: int | None = 12,
    new: int | None = 8,
    batch: int = 1,
    depth: str = "full",
    threads: int | None = 1,
    text: str | None = None,
) -> Configuration:
    return Configuration(bundle, "cpu", threads, batch, source, new, depth, text)


def text_row(
    bundle: str = "g2p", *, new: int | None = None, batch: int = 1, depth: str = "full"
) -> Configuration:
    return row(bundle, source=None, new=new, batch=batch, depth=depth, text="words.txt")


def plan(
    bundles: Mapping[str, str],
    rows: Sequence[Configuration],
    *,
    rounds: int = 2,
    repetitions: int = 3,
    warmup: int = 1,
    fresh: bool = True,
    inputs: Sequence[str] = (),
    operators: bool = False,
) -> Plan:
    effort = Effort(rounds, repetitions, warmup, fresh, seed=7)
    return Plan(dict(bundles), tuple(rows), effort, tuple(inputs), operators)


def job(
    folder: str,
    configuration: Configuration,
    *,
    kind: Literal["latency", "operators"] = "latency",
    repetitions: int = 3,
    first: int = 0,
    warmup: int = 1,
    inputs: Sequence[str] = (),
) -> Job:
    return Job(configuration, folder, kind, 0, repetitions, first, warmup, 7, tuple(inputs))
