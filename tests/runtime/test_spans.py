"""Spans of real requests: they add up, lie inside of each other, and cost nothing when off."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.builtin import resolve_bundle
from edgedec.runtime import spans as module
from edgedec.runtime.generator import Generator, load
from edgedec.runtime.spans import Span, Spans

WORDS = ["deployment", "encyclopedia", "a", "model"]
TOKEN_PHASES = {"first step", "step"}
TRIES = 20
"""The machine may take the processor away between two spans; not every time."""


@pytest.fixture(scope="module")
def whole() -> Generator:
    """g2p in one graph."""
    return load(resolve_bundle("g2p"), threads=1)


@pytest.fixture(scope="module")
def staged(staged_g2p: Path) -> Generator:
    """g2p in a stage for each layer."""
    return load(staged_g2p, threads=1)


@pytest.fixture(params=["whole", "staged"])
def generator(request: pytest.FixtureRequest) -> Generator:
    """Each in turn, its spans switched on."""
    found: Generator = request.getfixturevalue(request.param)
    found.spans.on = True
    found.spans.take()
    return found


def generate(generator: Generator, **options: Any) -> int:
    """A batch; returns the steps of its longest row."""
    results = generator.generate(WORDS, num_beams=1, **options)
    return max(len(result.tokens) for result in results)


def stream(generator: Generator) -> int:
    """One input, token by token; returns their number."""
    return sum(1 for _ in generator.stream(WORDS[0], num_beams=1))


REQUESTS: list[Callable[[Generator], int]] = [
    generate,
    stream,
    lambda generator: generate(generator, temperature=1.0, seed=3),
    lambda generator: generate(generator, repetition_penalty=1.5),
]


def split(spans: list[Span]) -> tuple[Span, list[Span], list[Span]]:
    """The request, its phases, and what lies inside of these."""
    (request,) = (span for span in spans if span.kind == "request")
    phases = [span for span in spans if span.kind == "phase"]
    return request, phases, [span for span in spans if span.kind in {"run", "work"}]


def end(span: Span) -> float:
    """When it ended."""
    return span.begin + span.seconds


@pytest.mark.parametrize("ask", REQUESTS)
def test_phases_add_up_to_the_request(
    generator: Generator, ask: Callable[[Generator], int]
) -> None:
    best = 0.0
    for _ in range(TRIES):
        began = perf_counter()
        ask(generator)
        wall = perf_counter() - began
        request, phases, _ = split(generator.spans.take())
        covered = sum(phase.seconds for phase in phases)
        assert covered <= request.seconds * (1 + 1e-9) <= wall * (1 + 1e-6)
        best = max(best, covered / wall)
        if best >= 0.97:
            break
    assert best >= 0.97


@pytest.mark.parametrize("ask", REQUESTS)
def test_a_request_is_phases_one_after_another(
    generator: Generator, ask: Callable[[Generator], int]
) -> None:
    tokens = ask(generator)
    request, phases, inside = split(generator.spans.take())
    names = [phase.name for phase in phases if phase.name != "detokenize"]
    assert names == ["tokenize", "prepare", "encode", "first step"] + ["step"] * (tokens - 1)
    assert phases[-1].name == "detokenize"
    assert all(end(one) <= other.begin + 1e-9 for one, other in pairwise(phases))
    assert request.begin == phases[0].begin
    assert end(phases[-1]) <= end(request) + 1e-9
    for span in inside:
        around = [p for p in phases if p.begin <= span.begin and end(span) <= end(p) + 1e-9]
        assert len(around) == 1, span
        allowed = {"encode"} if span.name == "encoder" else TOKEN_PHASES
        assert around[0].name in allowed


def test_every_graph_has_runs(whole: Generator, staged: Generator) -> None:
    for generator, components in (
        (whole, {"encoder", "decoder"}),
        (staged, {"encoder", "head", *(f"decoder.{i}-{i + 1}" for i in range(4))}),
    ):
        generator.spans.on = True
        generator.spans.take()
        tokens = generate(generator)
        _, _, inside = split(generator.spans.take())
        names = [span.name for span in inside]
        assert set(names) == components | {"plan", "search"}
        assert names.count("search") == tokens
        assert all(names.count(each) == tokens for each in components - {"encoder"})


def test_drafts_that_hold_are_steps_too(whole: Generator) -> None:
    whole.spans.on = True
    whole.spans.take()
    # What never ends repeats itself before long.
    forever: dict[str, Any] = {"eos_token_ids": [], "max_new_tokens": 60, "num_beams": 1}
    (result,) = whole.generate("la", depth="ngram:drafts=3", **forever)
    _, phases, inside = split(whole.spans.take())
    steps = [phase for phase in phases if phase.name in TOKEN_PHASES]
    assert len(steps) == len(result.tokens)
    assert whole.statistics.accepted > 0
    assert sum(span.name == "decoder" for span in inside) < len(steps)


def test_batches_and_beams(whole: Generator) -> None:
    whole.spans.on = True
    whole.spans.take()
    whole.generate(WORDS, batch_size=3, num_beams=2)
    request, phases, _ = split(whole.spans.take())
    names = [phase.name for phase in phases]
    assert names[0] == "tokenize"
    assert names[-1] == "detokenize"
    assert [names.count(name) for name in ("prepare", "encode", "first step")] == [2, 2, 2]
    assert sum(phase.seconds for phase in phases) <= request.seconds


@pytest.mark.parametrize("tokens", [1, 3])
def test_who_takes_a_stream_may_take_time(whole: Generator, tokens: int) -> None:
    whole.spans.on = True
    whole.spans.take()
    waited = 0.0
    for _ in whole.stream("model", num_beams=1, max_new_tokens=tokens):
        began = perf_counter()
        while perf_counter() < began + 0.01:
            pass
        waited += perf_counter() - began
    request, phases, _ = split(whole.spans.take())
    assert sum(phase.seconds for phase in phases) <= request.seconds - waited


def test_memory_of_caches_is_noted(whole: Generator) -> None:
    whole.spans.on = True
    generate(whole)
    assert whole.statistics.cache_bytes > 0
    assert whole.statistics.cross_bytes > 0


def test_nothing_is_taken_when_off(whole: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.spans.on = False
    whole.spans.take()

    def clock() -> float:
        raise AssertionError("spans that are off read no clock")

    monkeypatch.setattr(module, "perf_counter", clock)
    generate(whole)
    stream(whole)
    assert whole.spans.take() == []


@given(st.lists(st.tuples(st.sampled_from(["lap", "resume", "work"]), st.floats(0, 1e3))))
def test_laps_have_no_gaps(moves: list[tuple[str, float]]) -> None:
    now = 5.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "perf_counter", lambda: now)
        spans = Spans()
        spans.on = True
        spans.begin_request()
        lost = 0.0
        last = now
        for move, seconds in moves:
            began = spans.begin()
            now += seconds
            if move == "lap":
                spans.lap("step")
                last = now
            elif move == "resume":
                spans.resume()
                lost += now - last
                last = now
            else:
                spans.end("search", began)
        spans.lap("detokenize")
        spans.end_request()
    taken = spans.take()
    request, phases, inside = split(taken)
    assert request.seconds == pytest.approx(now - 5.0)
    assert sum(phase.seconds for phase in phases) + lost == pytest.approx(request.seconds)
    assert [span.seconds for span in inside] == pytest.approx(
        [seconds for move, seconds in moves if move == "work"], abs=1e-9
    )
    assert spans.take() == []
