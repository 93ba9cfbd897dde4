"""Profiles that somebody wrote by hand: what cannot be is one sentence, and nothing honest is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.profiling import profiles

from edgedec.errors import InputError
from edgedec.runtime.profiling.metrics import Context, metrics_of
from edgedec.runtime.profiling.record import Profile, Sample, dump_profile, load_profile
from edgedec.runtime.profiling.sound import check_profile
from edgedec.runtime.profiling.summary import summarize
from edgedec.runtime.schema import SchemaError, encode

SAMPLE = "rows.0.turns.0.samples.0"
WRONG = [
    (f"{SAMPLE}.e2e_ms", 0),
    (f"{SAMPLE}.e2e_ms", 1e308),
    (f"{SAMPLE}.e2e_ms", -1),
    (f"{SAMPLE}.e2e_ms", 1e-300),
    (f"{SAMPLE}.inputs", 0),
    (f"{SAMPLE}.inputs", 6),
    (f"{SAMPLE}.new_tokens", 0),
    (f"{SAMPLE}.source_tokens", 10**400),
    (f"{SAMPLE}.token_ms", []),
    (f"{SAMPLE}.token_ms", [2, 1]),
    (f"{SAMPLE}.token_ms", [1, 2, 1e6]),
    (f"{SAMPLE}.token_ms", [1, 1 + 1e-12]),
    (f"{SAMPLE}.steps_ms", 5e-324),
    (f"{SAMPLE}.exits", {"4": 10**308}),
    (f"{SAMPLE}.exits", {"four": 1}),
    (f"{SAMPLE}.exits", {"-1": 1}),
    (f"{SAMPLE}.exits", {"9" * 5000: 1}),
    (f"{SAMPLE}.accepted", 3),
    (f"{SAMPLE}.round", 1),
    (f"{SAMPLE}.runs_ms", {"x" * 20_000: 1}),
    (f"{SAMPLE}.runs_ms", {"\x1b[2J\n": -1}),
    (f"{SAMPLE}.runs_ms", {"x" * 20_000: "y"}),
    ("rows.0.turns.0.round", -5),
    ("rows.0.turns.0.round", 1),
    ("rows.0.turns.0.round", 99),
    ("rows.0.turns.0.conditions.yardstick_ms", 0),
    ("rows.0.turns.0.load_ms", 1e30),
    ("rows.0.metrics.e2e_ms.p50", 1e308),
    ("rows.0.metrics.e2e_ms.p50", -5),
    ("rows.0.metrics.e2e_ms.p50", 1e6),
    ("rows.0.metrics.e2e_ms.mean", 0),
    ("rows.0.metrics.e2e_ms.sd", -1),
    ("rows.0.metrics.e2e_ms.n", 0),
    ("rows.0.operators.by_type.0.ms", 1e308),
    ("rows.0.operators.e2e_ms", 0),
    ("rows.0.configuration.batch", 0),
    ("rows.0.warnings", ["x" * 20_000]),
    ("effort.rounds", 0),
    ("effort.rounds", 10**400),
    ("environment.bandwidth_gb_s", {"4": 1e-300}),
    ("environment.memory_bytes", -1),
    ("bundles.g2p.decoder_layers", 0),
]


def honest() -> Profile:
    return profiles.profile(profiles.row(operators=profiles.OPERATORS), profiles.failed("No."))


def with_value(path: str, new: Any) -> dict[str, Any]:
    """A profile as JSON with another value somewhere."""
    found: dict[str, Any] = json.loads(json.dumps(encode(honest())))
    *parents, last = path.split(".")
    place: Any = found
    for key in parents:
        place = place[int(key) if key.isdecimal() else key]
    assert last in place
    place[last] = new
    return found


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_profile(path)
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 500 + len(str(path))
    return sentence


def test_what_is_honest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(dump_profile(honest()), encoding="utf-8")
    assert load_profile(file) == honest()


def test_a_baseline_knows_no_phases() -> None:
    seen = Sample(0, 2, 20, 8, 30.0, (5.0, 10.0, 20.0, 30.0))
    turn = profiles.turn(0, [seen])
    check_profile(profiles.profile(replace(profiles.row(), turns=(turn,), metrics={})))


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda what: str(what)[:60])
def test_what_cannot_be_is_said(tmp_path: Path, path: str, value: Any) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(with_value(path, value)))
    sentence = refused(file)
    assert "p.json is not a profile" in sentence
    assert path.partition(".")[0] in sentence


def test_a_round_is_there_once(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    turn = with_value("complete", new=True)["rows"][0]["turns"][0]
    file.write_text(json.dumps(with_value("rows.0.turns", [turn, turn])))
    assert "a round twice" in refused(file)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
def test_nothing_is_nested_too_deep_to_be_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)
    assert "is not a profile" in refused(file)


extremes = st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 1e9]) | st.floats(0, 1e9)
counts = st.sampled_from([1, 10**9]) | st.integers(1, 10**9)


@given(
    e2e=extremes,
    tokens=st.lists(extremes, max_size=4),
    inputs=counts,
    new=counts,
    source=counts,
    steps=st.none() | counts,
    steps_ms=st.none() | extremes,
    layers=st.none() | st.floats(0, 100),
    energy=st.none() | extremes,
)
def test_whatever_is_not_refused_can_be_summed_up(
    e2e: float,
    tokens: list[float],
    inputs: int,
    new: int,
    source: int,
    steps: int | None,
    steps_ms: float | None,
    layers: float | None,
    energy: float | None,
) -> None:
    sample = Sample(
        0, inputs, source, new, e2e, tuple(sorted(tokens)), steps, steps_ms, mean_layers=layers
    )
    turns = (profiles.turn(0, [replace(sample, energy_j=energy)]),)
    row = replace(profiles.row(), turns=turns, metrics={})
    try:
        check_profile(profiles.profile(row))
    except SchemaError:
        return
    context = Context(row.configuration, turns, None, profiles.FACTS, profiles.ENVIRONMENT)
    values = {name: metric.values(context) for name, metric in metrics_of(context).items()}
    summaries = {name: summarize(found) for name, found in values.items() if found}
    check_profile(profiles.profile(replace(row, metrics=dict(summaries))))
