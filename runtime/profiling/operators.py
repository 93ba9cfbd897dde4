"""One request with ONNX Runtime's records of every operator, summed by type and by layer."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from edgedec.errors import InputError
from edgedec.runtime.profiling.node_path import cross_projection, part_of
from edgedec.runtime.profiling.plan import Job
from edgedec.runtime.profiling.record import Operator, Operators
from edgedec.runtime.profiling.records import Node, Run, read_runs
from edgedec.runtime.profiling.trace import Event, operator_events, span_events
from edgedec.runtime.spans import Span

WARMUP = {"max_new_tokens": 2, "min_new_tokens": 0}
"""The first runs of a graph take longer; more of them would only make the records long."""
Pair = tuple[Span, Run]
"""A run as we saw it, and as it was recorded."""


def run(job: Job) -> tuple[Operators, tuple[Event, ...]]:
    """Open a bundle with records, warm up, and make one request.

    Returns:
        Sums, and events for a trace if the job asks for them.

    Raises:
        EdgedecError: the request cannot be made.
        InputError: it is too long for ONNX Runtime's records.
    """
    from edgedec.runtime.bundle import open_bundle
    from edgedec.runtime.generator import Generator
    from edgedec.runtime.profiling.request import requests_of

    configuration = job.configuration
    with TemporaryDirectory() as folder:
        generator = Generator(
            open_bundle(Path(job.folder)),
            device=configuration.device,
            threads=configuration.threads,
            depth=configuration.depth,
            records=Path(folder),
        )
        manifest = generator.bundle.manifest
        requests = requests_of(job, manifest)
        inputs, spans = requests.inputs(0), generator.spans
        spans.on = True
        generator.generate(inputs, batch_size=len(inputs), **{**requests.options, **WARMUP})
        before = spans.take()
        generator.generate(inputs, batch_size=len(inputs), **requests.options)
        request = spans.take()
        recorded = {name: read_runs(path) for name, path in generator.end_records().items()}
    pairs = pair(before, request, recorded)
    layers = manifest.interface.decoder_layers
    return sum_up(request, pairs, layers), tuple(_events(request, pairs)) if job.trace else ()


def pair(
    before: Iterable[Span], request: Iterable[Span], recorded: Mapping[str, Sequence[Run]]
) -> list[Pair]:
    """Find the record of every run of a request: both are in the order in which they ran.

    Args:
        before: spans since the sessions were opened,
        request: and of the request.
        recorded: component -> all its runs.

    Raises:
        InputError: records end early: ONNX Runtime keeps a million per session.
    """
    earlier: dict[str, int] = {}
    for span in before:
        if span.kind == "run":
            earlier[span.name] = earlier.get(span.name, 0) + 1
    pairs = []
    for span in request:
        if span.kind == "run":
            number = earlier.get(span.name, 0)
            if number >= len(recorded[span.name]):
                raise InputError(
                    f"ONNX Runtime's records of {span.name} are full after {number:,} runs: "
                    "measure operators with fewer new tokens (-n)."
                )
            pairs.append((span, recorded[span.name][number]))
            earlier[span.name] = number + 1
    return pairs


def sum_up(request: Sequence[Span], pairs: Sequence[Pair], decoder_layers: int) -> Operators:
    """Sum records by type of operator and by part of the model.

    Args:
        request: spans of the request.
        pairs: its runs.
        decoder_layers: of the model.
    """
    phases = [span for span in request if span.kind == "phase"]
    placed = [(phase_of(span, phases), span.name, run) for span, run in pairs]
    whole = next(span for span in request if span.kind == "request")
    return Operators(
        e2e_ms=whole.seconds * 1e3,
        steps=sum(phase.name == "step" for phase in phases),
        by_type=_sums(placed, lambda node: node.operator),
        by_layer=_sums(placed, lambda node: part_of(node.name)),
        cross_kv_ms=_cross_kv_ms(
            (node for phase, _, run in placed if phase == "encode" for node in run.nodes),
            decoder_layers,
        ),
    )


def phase_of(span: Span, phases: Sequence[Span]) -> str:
    """The phase that a run lies in.

    Args:
        span: of the run.
        phases: of its request, in order.
    """
    after = bisect_right(phases, span.begin, key=lambda phase: phase.begin)
    return phases[max(after - 1, 0)].name


def _sums(
    placed: Iterable[tuple[str, str, Run]], name: Callable[[Node], str]
) -> tuple[Operator, ...]:
    """Calls and time, in the order in which each first ran."""
    calls: dict[tuple[str, str, str], int] = {}
    us: dict[tuple[str, str, str], int] = {}
    for phase, component, run in placed:
        for node in run.nodes:
            key = (component, phase, name(node))
            calls[key] = calls.get(key, 0) + 1
            us[key] = us.get(key, 0) + node.us
    return tuple(Operator(*key, calls=count, ms=us[key] / 1e3) for key, count in calls.items())


def _cross_kv_ms(nodes: Iterable[Node], decoder_layers: int) -> float | None:
    """Time of the projections; None unless those of all layers are found."""
    us, found = 0, set()
    for node in nodes:
        projection = cross_projection(node.name)
        if projection is not None:
            layer, parts = projection
            found |= {(layer, part) for part in parts}
            us += node.us
    return us / 1e3 if found and len(found) == 2 * decoder_layers else None


def _events(request: Sequence[Span], pairs: Iterable[Pair]) -> list[Event]:
    pid, tid = os.getpid(), threading.get_native_id()
    zero = min(span.begin for span in request)
    return [
        *span_events(request, pid=pid, tid=tid, zero=zero),
        *operator_events(pairs, pid=pid, tid=tid, zero=zero),
    ]
