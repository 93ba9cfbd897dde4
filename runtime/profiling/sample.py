"""A sample from the spans of one request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgedec.runtime.depth.statistics import Statistics
from edgedec.runtime.profiling.record import Sample
from edgedec.runtime.spans import Span

TOKEN_PHASES = ("first step", "step")
"""Phases at whose end a token is known."""


@dataclass(frozen=True)
class Call:
    """One call of a generator, seen from outside.

    Attributes:
        began: of `time.perf_counter`, seconds.
        seconds: it took.
        inputs: rows.
        new_tokens: generated, all rows.
        text: whether inputs were texts; the phase that tokenizes only checks ids otherwise.
        energy_j: that was used meanwhile; None if unknown.
    """

    began: float
    seconds: float
    inputs: int
    new_tokens: int
    text: bool
    energy_j: float | None = None


def sample_of(round_: int, call: Call, spans: Iterable[Span], statistics: Statistics) -> Sample:
    """Put together what was measured of a request.

    Args:
        round_: number of the process.
        call: seen from outside.
        spans: of that call, in the order in which they ended.
        statistics: of that call.
    """
    phases: dict[str, float] = {}
    runs: dict[str, float] = {}
    work = {"plan": 0.0, "search": 0.0}
    tokens: list[float] = []
    steps = 0
    inside: list[Span] = []  # what ran since the last phase ended
    for span in spans:
        if span.kind in {"run", "work"}:
            inside.append(span)
        elif span.kind == "phase":
            name = "prepare" if span.name == "tokenize" and not call.text else span.name
            phases[name] = phases.get(name, 0.0) + span.seconds
            if span.name in TOKEN_PHASES:
                tokens.append(_ms(span.begin + span.seconds - call.began))
            if span.name == "step":
                steps += 1
                for part in inside:
                    into = runs if part.kind == "run" else work
                    into[part.name] = into.get(part.name, 0.0) + part.seconds
            inside.clear()

    def phase(name: str) -> float | None:
        return _ms(phases[name]) if name in phases else None

    drafts = statistics.drafted > 0
    return Sample(
        round=round_,
        inputs=call.inputs,
        source_tokens=statistics.source_tokens,
        new_tokens=call.new_tokens,
        e2e_ms=_ms(call.seconds),
        token_ms=tuple(tokens),
        steps=steps,
        steps_ms=_ms(phases.get("step", 0.0)),
        tokenize_ms=phase("tokenize"),
        prepare_ms=phase("prepare"),
        encode_ms=phase("encode"),
        first_step_ms=phase("first step"),
        detokenize_ms=phase("detokenize"),
        runs_ms={name: _ms(seconds) for name, seconds in runs.items()},
        plan_ms=_ms(work["plan"]),
        search_ms=_ms(work["search"]),
        mean_layers=statistics.mean_layers,
        exits={str(layers): n for layers, n in sorted(statistics.exits.items())} or None,
        drafted=statistics.drafted if drafts else None,
        accepted=statistics.accepted if drafts else None,
        energy_j=call.energy_j,
        cache_bytes=statistics.cache_bytes or None,
        cross_bytes=statistics.cross_bytes or None,
    )


def _ms(seconds: float) -> float:
    """Milliseconds, to the nanosecond: more digits are noise, and a file of them is long."""
    return round(seconds * 1e3, 6)
