"""Metrics: their formulas, their documentation, and what a profile says of those it lacks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.profiling import profiles
from tests.profiling.plans import plan, row, text_row

from edgedec.runtime.depth.statistics import Statistics
from edgedec.runtime.profiling.collect import collect
from edgedec.runtime.profiling.metrics import COMPONENT, METRICS, Context, metrics_of
from edgedec.runtime.profiling.plan import Measured
from edgedec.runtime.profiling.record import (
    FileCache,
    Operators,
    Sample,
    Turn,
    dump_profile,
    load_profile,
)
from edgedec.runtime.profiling.sample import Call, sample_of
from edgedec.runtime.spans import Span

SAMPLE = Sample(
    round=0,
    inputs=2,
    source_tokens=10,
    new_tokens=9,
    e2e_ms=52.0,
    token_ms=(12.0, 20.0, 28.0, 36.0, 50.0),
    steps=4,
    steps_ms=38.0,
    prepare_ms=1.0,
    encode_ms=7.0,
    first_step_ms=4.0,
    detokenize_ms=2.0,
    runs_ms={"decoder": 32.0, "head": 2.0},
    plan_ms=0.4,
    search_ms=0.8,
    mean_layers=3.5,
    exits={"3": 3, "4": 4},
    drafted=8,
    accepted=6,
    energy_j=0.45,
    cache_bytes=3_000_000,
    cross_bytes=1_500_000,
)
EXPECTED = {
    "ttft_ms": 12.0,
    "tpot_ms": 10.0,
    "tokens_per_s": 7000 / 38,
    "e2e_ms": 52.0,
    "inputs_per_s": 2000 / 52,
    "tokenize_ms": None,
    "prepare_ms": 1.0,
    "encode_ms": 7.0,
    "cross_kv_ms": 0.75,
    "first_step_ms": 4.0,
    "detokenize_ms": 2.0,
    "run_ms[decoder]": 8.0,
    "run_ms[head]": 0.5,
    "plan_ms": 0.1,
    "search_ms": 0.2,
    "cold_start_ms": 310.0,
    "warm_start_ms": 300.0,
    "cache_mb": 3.0,
    "cross_mb": 1.5,
    "bytes_per_weight": 4.0,
    "mean_layers": 3.5,
    "acceptance": 0.75,
    "energy_mj_per_token": 50.0,
}


def turn(number: int, *samples: Sample) -> Turn:
    made = profiles.turn(number, samples)
    cache: FileCache = "warm" if number % 2 else "cold"
    return replace(made, start_ms=310.0 - 10 * (number % 2), file_cache=cache)


def context(*turns: Turn, operators: Operators | None = profiles.OPERATORS) -> Context:
    return Context(row(threads=4), turns, operators, profiles.FACTS, profiles.ENVIRONMENT)


def values(subject: Context) -> dict[str, list[float]]:
    return {name: metric.values(subject) for name, metric in metrics_of(subject).items()}


def test_formulas() -> None:
    found = values(context(turn(0, SAMPLE), turn(1, SAMPLE)))
    for name, value in EXPECTED.items():
        if value is None:
            assert found[name] == [], name
        else:
            assert found[name] == pytest.approx([value] * len(found[name])), name
            assert found[name], name


def test_what_memory_bounds() -> None:
    facts = replace(profiles.FACTS, step_bytes=6_000_000, head_bytes=2_000_000, kv_width=100)
    sample = replace(SAMPLE, drafted=None, accepted=None, mean_layers=3.0)
    found = values(replace(context(turn(0, sample)), facts=facts))
    # all weights in each of 4 steps that made 7 tokens; 5 source positions, 1 + 9 / 2 / 2 others
    read = (6e6 * 4 / 7 + 3 * 2 * 4 * 100 * (5 + 1 + 2.25)) / 1e6
    assert found["read_mb_per_token"] == pytest.approx([read])
    assert found["bandwidth_fraction"] == pytest.approx([read * 7000 / 38 / 1e3 / 20])
    for threads, name in ((None, "4"), (3, None)):
        bound = replace(context(turn(0, sample)), facts=facts, configuration=row(threads=threads))
        assert len(values(bound)["bandwidth_fraction"]) == (name is not None)
    for device in ("tensorrt:native", "auto", "encoder=cpu,decoder=cuda"):  # not these bytes
        gpu = replace(
            context(turn(0, sample)), facts=facts, configuration=replace(row(), device=device)
        )
        assert values(gpu)["read_mb_per_token"] == values(gpu)["bandwidth_fraction"] == []


@given(st.lists(st.floats(0.01, 1e3), min_size=2, max_size=50), st.floats(0, 10), st.integers(1, 9))
def test_first_token_and_the_others_are_the_request(
    intervals: list[float], rest: float, inputs: int
) -> None:
    times = [sum(intervals[: i + 1]) for i in range(len(intervals))]
    sample = replace(
        SAMPLE,
        token_ms=tuple(times),
        steps=len(times) - 1,
        e2e_ms=times[-1] + rest,
        inputs=inputs,
    )
    found = values(context(turn(0, sample)))
    (first,), (others,) = found["ttft_ms"], found["tpot_ms"]
    assert first + (len(times) - 1) * others == pytest.approx(sample.e2e_ms)


def test_a_batch_taken_one_by_one_has_neither_a_first_token_nor_a_time_per_token() -> None:
    sample = replace(SAMPLE, steps=3)  # of two inputs: each has a first step
    found = context(turn(0, sample))
    metrics = metrics_of(found)
    for name in ("ttft_ms", "tpot_ms"):
        assert metrics[name].values(found) == []
        assert "one by one" in metrics[name].why(profiles.ENVIRONMENT)
        assert "-b 1" not in metrics_of(context(turn(0, SAMPLE)))[name].reason
    assert metrics["e2e_ms"].values(found) == [52.0]
    assert metrics["inputs_per_s"].values(found) == pytest.approx([2000 / 52])
    assert metrics["tokens_per_s"].values(found) == pytest.approx([7000 / 38])


def test_a_baseline_is_seen_from_outside() -> None:
    seen = Sample(0, 2, 10, 10, 52.0, (12.0, 20.0, 28.0, 36.0, 50.0))
    found = values(context(turn(0, seen), operators=None))
    assert found["tokens_per_s"] == pytest.approx([8000 / 38])
    assert found["ttft_ms"] == [12.0]
    for name in ("encode_ms", "plan_ms", "search_ms", "cache_mb", "mean_layers", "cross_kv_ms"):
        assert found[name] == [], name
    assert not any(name.startswith("run_ms") for name in found)


def test_a_sample_from_spans() -> None:
    def span(kind: str, name: str, begin: float, seconds: float) -> Span:
        return Span(kind, name, begin, seconds)  # type: ignore[arg-type]

    def batch(at: float) -> list[Span]:
        return [
            span("phase", "prepare", at, 1),
            span("run", "encoder", at + 1, 2),
            span("phase", "encode", at + 1, 3),
            span("run", "decoder", at + 4, 4),
            span("work", "search", at + 8, 1),
            span("phase", "first step", at + 4, 6),
            span("work", "plan", at + 10, 1),
            span("run", "decoder", at + 11, 5),
            span("run", "decoder", at + 16, 5),
            span("work", "search", at + 21, 1),
            span("phase", "step", at + 10, 13),
        ]

    spans = [span("phase", "tokenize", 100, 2), *batch(102), *batch(125)]
    spans += [span("phase", "detokenize", 148, 1), span("request", "request", 100, 49)]
    call = Call(100, 49.5, inputs=2, new_tokens=4, text=True)
    statistics = Statistics(6, tokens=2, layers=6, exits={4: 1, 2: 1}, drafted=3, accepted=1)
    found = sample_of(5, call, spans, statistics)
    assert found == Sample(
        round=5,
        inputs=2,
        source_tokens=6,
        new_tokens=4,
        e2e_ms=49_500,
        token_ms=(12_000, 25_000, 35_000, 48_000),
        steps=2,
        steps_ms=26_000,
        tokenize_ms=2000,
        prepare_ms=2000,
        encode_ms=6000,
        first_step_ms=12_000,
        detokenize_ms=1000,
        runs_ms={"decoder": 20_000},
        plan_ms=2000,
        search_ms=2000,
        mean_layers=3,
        exits={"2": 1, "4": 1},
        drafted=3,
        accepted=1,
    )
    # Checking ids is no tokenizing, and is not lost either.
    ids = sample_of(5, replace(call, text=False), spans, statistics)
    assert (ids.tokenize_ms, ids.prepare_ms) == (None, 4000)


def test_a_profile_of_what_happened(tmp_path: Path) -> None:
    rows = [row(), row("broken"), text_row(), row(new=9)]
    sweep = plan({"g2p": "a", "broken": "b"}, rows, inputs=["x"])
    events = [
        Measured(0, turn=turn(1, SAMPLE)),
        Measured(1, error="it is broken."),
        Measured(0, turn=turn(0, SAMPLE, SAMPLE)),
        Measured(2, turn=turn(0, replace(SAMPLE, tokenize_ms=0.5))),
        Measured(2, error="the process that measured was killed."),
        Measured(0, operators=profiles.OPERATORS),
    ]
    facts = {"g2p": profiles.FACTS}
    found = collect(sweep, profiles.ENVIRONMENT, facts, events, complete=False)
    path = tmp_path / "profile.json"
    path.write_text(dump_profile(found), encoding="utf-8")
    assert load_profile(path) == found

    measured, broken, killed, waiting = found.rows
    assert not found.complete
    assert [part.round for part in measured.turns] == [0, 1]
    assert measured.operators == profiles.OPERATORS
    assert measured.error is None
    assert measured.warnings
    summary = measured.metrics["e2e_ms"]
    assert summary is not None
    assert (summary.n, summary.p50) == (3, 52.0)
    assert (broken.error, broken.warnings) == ("it is broken.", ())
    assert set(broken.missing.values()) == {"the row failed"}
    # What it measured before is kept.
    assert killed.error is not None
    tokenize = killed.metrics["tokenize_ms"]
    assert tokenize is not None
    assert tokenize.p50 == 0.5
    assert waiting.error is None
    assert set(waiting.missing.values()) == {"the sweep was interrupted before"}
    for one in found.rows:
        assert set(one.missing) == {name for name, value in one.metrics.items() if value is None}
        assert set(METRICS) - {COMPONENT} <= set(one.metrics)


def test_the_machine_says_why_energy_is_missing() -> None:
    metric = METRICS["energy_mj_per_token"]
    assert "cannot be read" in metric.why(replace(profiles.ENVIRONMENT, energy_missing=None))
    told = replace(profiles.ENVIRONMENT, energy_missing="only root may read it")
    sample = replace(SAMPLE, energy_j=None)
    events = [Measured(0, turn=turn(0, sample))]
    (found,) = collect(plan({"g2p": "a"}, [row()]), told, {}, events, complete=True).rows
    assert found.missing["energy_mj_per_token"] == "only root may read it"


def test_every_metric_is_documented(root: Path) -> None:
    text = (root / "docs" / "metrics.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)
    documented = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(documented) == list(METRICS)
    for name, section in documented.items():
        metric = METRICS[name]
        said = " ".join(section.partition("\n## ")[0].split())
        unit = re.search(r"Unit: (.+?), per (sample|turn|row)[.;]", said)
        assert unit is not None, name
        assert unit[1] == (metric.unit or "none"), name
        assert unit[2] == metric.per, name
        assert "Formula" in said, name
        assert re.search(r"Null: .+\.$", said), name


def test_reasons_can_stand_behind_a_colon() -> None:
    for metric in METRICS.values():
        assert metric.reason[0].islower(), metric.name
        assert metric.reason[-1] not in ".;:", metric.name
