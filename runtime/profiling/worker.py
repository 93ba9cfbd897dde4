"""``python -m edgedec.runtime.profiling.worker``: measures turns, in a process of its own.

A job comes in as one line of JSON; one line goes out: ``{"turn": ...}``, ``{"operators": ...,
"events": [...]}`` or ``{"error": sentence}``. Imports wait until they are needed: the start of this
process is one of the things that are measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedec.runtime.profiling.plan import Job
from edgedec.runtime.profiling.record import Sample, Turn
from edgedec.runtime.profiling.serve import serve

if TYPE_CHECKING:
    from edgedec.runtime.depth.plan import Policy
    from edgedec.runtime.generator import Generator
    from edgedec.runtime.profiling.energy import Energy
    from edgedec.runtime.profiling.request import Requests

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


def carry_out(kept: dict[Key, Opened], job: Job) -> dict[str, Any]:
    """Do a job.

    Args:
        kept: bundles that were opened for earlier jobs; gets this one's.
        job: what to do.

    Raises:
        EdgedecError: it cannot be done.
    """
    if job.kind == "operators":
        from edgedec.runtime.profiling.operators import run

        operators, events = run(job)
        return {"operators": operators, "events": events}
    return {"turn": turn(kept, job)}


def turn(kept: dict[Key, Opened], job: Job) -> Turn:
    """Open the bundle, make a first token, warm up, and measure."""
    import onnxruntime  # noqa: F401  # here to know how long it takes

    import edgedec.runtime.generator  # noqa: F401
    from edgedec.runtime.depth.options import make_policy
    from edgedec.runtime.profiling.request import requests_of

    imports_ms = _since(job)
    configuration = job.configuration
    key = (job.folder, configuration.device, configuration.threads)
    if key not in kept:
        kept[key] = _open(*key)
    generator = kept[key].generator
    manifest = generator.bundle.manifest
    policy = make_policy(configuration.depth, manifest)
    requests = requests_of(job, manifest)
    start_ms = _first_token(generator, policy, requests)

    # From here on nothing is a part of the start.
    from edgedec.runtime.profiling.conditions import Watch
    from edgedec.runtime.profiling.energy import Energy
    from edgedec.runtime.profiling.memory import process_memory

    energy = Energy.open()
    for number in range(job.warmup):
        _request(generator, policy, requests, number % max(job.repetitions, 1), None, job.round)
    with Watch() as watch:
        samples = tuple(
            _request(generator, policy, requests, number, energy, job.round)
            for number in range(job.repetitions)
        )
        memory = None if job.started is None else process_memory()
        conditions = watch.conditions()
    return Turn(
        round=job.round,
        start_ms=start_ms,
        imports_ms=imports_ms,
        load_ms=kept[key].load_ms,
        file_cache=None,  # whoever started this process knows
        memory=memory,
        conditions=conditions,
        samples=samples,
    )


def _since(job: Job) -> float | None:
    """Milliseconds since this process was started; None where that tells nothing."""
    return None if job.started is None else (time.monotonic() - job.started) * 1e3


def _open(folder: str, device: str, threads: int | None) -> Opened:
    from edgedec.runtime.bundle import open_bundle
    from edgedec.runtime.generator import Generator

    began = time.perf_counter()
    generator = Generator(open_bundle(Path(folder)), device=device, threads=threads)
    return Opened(generator, (time.perf_counter() - began) * 1e3)


def _first_token(generator: Generator, policy: Policy, requests: Requests) -> float | None:
    """Generate one token; returns the milliseconds from the start of the process until then."""
    generator.spans.on = True
    generator.spans.take()
    inputs = requests.inputs(0)
    generator.generate(
        inputs, batch_size=len(inputs), depth=policy, **{**requests.options, **FIRST_TOKEN}
    )
    since = _since(requests.job)
    if since is None:
        return None
    now = time.perf_counter()
    first = next(span for span in generator.spans.take() if span.name == "first step")
    return since - (now - first.begin - first.seconds) * 1e3


def _request(
    generator: Generator,
    policy: Policy,
    requests: Requests,
    number: int,
    energy: Energy | None,
    round_: int,
) -> Sample:
    """Make one request, and measure it."""
    from edgedec.runtime.profiling.sample import Call, sample_of

    inputs = requests.inputs(number)
    text = requests.job.configuration.source_tokens is None
    generator.spans.on = True
    generator.spans.take()
    joules = None if energy is None else energy.joules()
    began = time.perf_counter()
    results = generator.generate(inputs, batch_size=len(inputs), depth=policy, **requests.options)
    seconds = time.perf_counter() - began
    used = None if energy is None or joules is None else energy.joules() - joules
    call = Call(
        began=began,
        seconds=seconds,
        inputs=len(inputs),
        source_tokens=sum(len(generator._encode(item)) for item in inputs),
        new_tokens=sum(len(result.tokens) for result in results),
        text=text,
        energy_j=used,
    )
    return sample_of(round_, call, generator.spans.take(), generator.statistics)


if __name__ == "__main__":
    serve(partial(carry_out, {}))
