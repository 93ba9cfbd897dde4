"""One turn: open a bundle, make a first token, warm up, and measure requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.errors import InputError
from edgedec.runtime.profiling.plan import Job
from edgedec.runtime.profiling.record import Sample, Turn
from edgedec.runtime.profiling.request import Requests, requests_of
from edgedec.runtime.profiling.sample import Call, sample_of

if TYPE_CHECKING:
    from edgedec.runtime.depth.plan import Policy
    from edgedec.runtime.generator import Generator, Result
    from edgedec.runtime.profiling.energy import Energy

QUOTED = 40
"""Letters of a line that an error quotes."""
FIRST_TOKEN = {"max_new_tokens": 1, "min_new_tokens": 0}


@dataclass(frozen=True)
class Opened:
    """A bundle that is ready.

    Attributes:
        generator: opened.
        load_ms: that this took.
    """

    generator: Generator
    load_ms: float


Key = tuple[str, str, "int | None"]
"""Folder, device and threads of an opened bundle."""


@dataclass(frozen=True)
class Start:
    """How this process started.

    Attributes:
        imported: `time.monotonic` when what any user of edgedec imports was imported,
        own: and the seconds that the profiler's own modules took after that.
    """

    imported: float
    own: float


def carry_out(kept: dict[Key, Opened], start: Start, job: Job) -> dict[str, Any]:
    """Do a job.

    Args:
        kept: bundles that were opened for earlier jobs; gets this one's.
        start: of this process.
        job: what to do.

    Raises:
        EdgedecError: it cannot be done.
    """
    if job.kind == "operators":
        from edgedec.runtime.profiling.operators import run

        operators, events = run(job)
        return {"operators": operators, "events": events}
    return {"turn": measure_turn(kept, start, job)}


def measure_turn(kept: dict[Key, Opened], start: Start, job: Job) -> Turn:
    """Do a job of kind ``latency``."""
    from edgedec.runtime.depth.options import make_policy

    configuration = job.configuration
    key = (job.folder, configuration.device, configuration.threads)
    if key not in kept:
        kept[key] = _open(*key)
    generator = kept[key].generator
    manifest = generator.bundle.manifest
    policy = make_policy(configuration.depth, manifest)
    requests = requests_of(job, manifest)
    first = _first_token(generator, policy, requests)

    def request(number: int, energy: Energy | None) -> Sample:
        return _request(generator, policy, requests, number, energy)

    return turn_of(job, start, kept[key].load_ms, first, request)


def turn_of(
    job: Job,
    start: Start,
    load_ms: float,
    first: float,
    request: Callable[[int, Energy | None], Sample],
) -> Turn:
    """Warm up, measure requests, and put together what this process saw.

    Args:
        job: to do.
        start: of this process.
        load_ms: that opening took.
        first: when the first token was known, by `time.monotonic`.
        request: makes the request of a number, whose energy is counted if that can be.
    """
    from edgedec.runtime.profiling.conditions import Watch
    from edgedec.runtime.profiling.energy import Energy
    from edgedec.runtime.profiling.memory import process_memory

    # Warming up included: what the system counts is too coarse for a single short request.
    watch = Watch()
    for number in range(job.warmup):
        request(number % max(job.repetitions, 1), None)
    energy = Energy.open()
    samples = tuple(request(number, energy) for number in range(job.repetitions))
    fresh = job.started is not None
    since = job.started or 0.0
    return Turn(
        round=job.round,
        # The profiler's own modules are nobody's start.
        start_ms=(first - since - start.own) * 1e3 if fresh else None,
        imports_ms=(start.imported - since) * 1e3 if fresh else None,
        load_ms=load_ms,
        file_cache=None,  # whoever started this process knows
        memory=process_memory() if fresh else None,
        conditions=watch.conditions(),
        samples=samples,
    )


def _open(folder: str, device: str, threads: int | None) -> Opened:
    from edgedec.runtime.bundle import open_bundle
    from edgedec.runtime.generator import Generator

    began = time.perf_counter()
    generator = Generator(open_bundle(Path(folder)), device=device, threads=threads)
    return Opened(generator, (time.perf_counter() - began) * 1e3)


def _first_token(generator: Generator, policy: Policy, requests: Requests) -> float:
    """Generate one token.

    Returns:
        When it was known, by `time.monotonic`.
    """
    generator.spans.on = True
    generator.spans.take()
    inputs = requests.inputs(0)
    _generate(generator, policy, requests, inputs, {**requests.options, **FIRST_TOKEN})
    ahead = time.monotonic() - time.perf_counter()
    first = next(span for span in generator.spans.take() if span.name == "first step")
    return first.begin + first.seconds + ahead


def _generate(
    generator: Generator,
    policy: Policy,
    requests: Requests,
    inputs: list[str] | list[list[int]],
    options: dict[str, Any],
) -> list[Result]:
    """Generate, and say of which lines an error is."""
    try:
        return generator.generate(inputs, batch_size=len(inputs), depth=policy, **options)
    except InputError as error:
        first = inputs[0]
        if not isinstance(first, str):
            raise
        begin = first if len(first) <= QUOTED else f"{first[:QUOTED]}..."
        at = "line" if len(inputs) == 1 else f"{len(inputs)} lines from"
        text = requests.job.configuration.text
        raise InputError(f"{text}, {at} {begin!r}: {error}") from error


def _request(
    generator: Generator,
    policy: Policy,
    requests: Requests,
    number: int,
    energy: Energy | None,
) -> Sample:
    """Make one request, and measure it."""
    inputs = requests.inputs(number)
    text = requests.job.configuration.source_tokens is None
    generator.spans.on = True
    generator.spans.take()
    before = None if energy is None else energy.joules()
    began = time.perf_counter()
    results = _generate(generator, policy, requests, inputs, requests.options)
    seconds = time.perf_counter() - began
    used = None if energy is None else energy.since(before)
    call = Call(
        began=began,
        seconds=seconds,
        inputs=len(inputs),
        new_tokens=sum(len(result.tokens) for result in results),
        text=text,
        energy_j=used,
    )
    return sample_of(requests.job.round, call, generator.spans.take(), generator.statistics)
