"""From a profile to answers: the right figures, beside the paper's claims."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.profiling import profiles
from tests.profiling.profiles import profile

from edgedec.errors import InputError
from edgedec.runtime.profiling.collect import collect
from edgedec.runtime.profiling.plan import Measured, Plan
from edgedec.runtime.profiling.record import Configuration, Effort, Memory, Row
from edgedec.runtime.schema import decode, encode
from edgedec.study import flops, render
from edgedec.study.measure import conclude, label
from edgedec.study.record import QUESTIONS, Study
from edgedec.study.shapes import ARCHITECTURES, SHAPES, Architecture, spec_of

NEW = 5
TINY = SHAPES["tiny"]


def row(
    architecture: Architecture,
    prompt: int,
    times: Sequence[tuple[float, float]],
    peak_rss_mb: float,
    shape: str = "tiny",
) -> Row:
    """A row of rounds with one request each.

    Args:
        architecture, prompt, shape: which.
        times: of every round, milliseconds to the first token and of each further one.
        peak_rss_mb: of every round.
    """
    turns = tuple(
        profiles.turn(
            number,
            [profiles.sample(first + (NEW - 1) * each, ttft_ms=first, steps=NEW)],
            memory=Memory(peak_rss_mb, 90.0, 40.0, 50.0),
        )
        for number, (first, each) in enumerate(times)
    )
    what = Configuration(label(SHAPES[shape], architecture), "cpu", 1, 1, prompt, NEW, "full")
    plan = Plan({}, (what,), Effort(len(times), len(times), 0, fresh=True, seed=0))
    events = [Measured(0, turn=turn) for turn in turns]
    (found,) = collect(plan, profiles.ENVIRONMENT, {}, events, complete=True).rows
    return replace(found, warnings=())


BOTH = row("encoder-decoder", 128, [(10.0, 1.0), (20.0, 1.0), (10.5, 1.0)], 84.0)
ALONE = row("decoder-only", 128, [(20.0, 3.0), (40.0, 3.0), (20.0, 3.0)], 100.0)


@pytest.fixture
def study() -> Study:
    return conclude([TINY], "none", NEW, profile(BOTH, ALONE))


def test_answers_are_paired_by_round(study: Study) -> None:
    found = {answer.metric: answer for answer in study.answers}
    assert list(found) == [question.metric for question in QUESTIONS]
    first = found["ttft_ms"]
    assert (first.ratio, first.high) == (2.0, 2.0)
    assert first.low == pytest.approx(20 / 10.5)
    assert (first.rounds, first.coverage) == (3, 0.75)
    assert found["tpot_ms"].ratio == pytest.approx(3)
    assert found["e2e_ms"].ratio == pytest.approx(32 / 14.5)  # of 32/14, 52/24 and 32/14.5
    assert found["peak_rss_mb"].ratio == pytest.approx(100 / 84)


def test_arithmetic_is_exact(study: Study) -> None:
    both, alone = (spec_of(TINY, architecture) for architecture in ARCHITECTURES)
    found = {answer.metric: answer for answer in study.answers}
    whole = found["flops_request"]
    assert whole.ratio == pytest.approx(
        flops.request(alone, 128, NEW).total / flops.request(both, 128, NEW).total
    )
    assert (whole.low, whole.high, whole.rounds) == (None, None, None)
    one, other = study.measurements
    for measured, spec in ((one, both), (other, alone)):
        first = measured.flops_first_token
        assert first == flops.first_token(spec, 128).total
        rest = [flops.next_token(spec, 128, index).total for index in range(1, NEW)]
        assert measured.flops_token == pytest.approx(sum(rest) / len(rest))
        assert measured.flops_request == first + sum(rest)


def test_throughput_is_that_of_the_median_request(study: Study) -> None:
    one, other = study.measurements
    assert (one.architecture, other.architecture) == ARCHITECTURES
    assert one.tokens_per_s == pytest.approx(1000)
    assert other.tokens_per_s == pytest.approx(1000 / 3)
    assert one.request_tokens_per_s == pytest.approx(1000 * NEW / 14.5)


@pytest.mark.parametrize("output", ["table", "md"])
def test_our_figures_stand_beside_the_claims(study: Study, output: str) -> None:
    text = render(study, output)
    flat = " ".join(text.split())
    lines = {line.lstrip("| ").split("  ")[0].split(" |")[0]: line for line in text.splitlines()}
    ours, theirs = (flops.request(spec_of(TINY, a), 128, NEW).total for a in ARCHITECTURES)
    expected = {
        "time to first token": ("-47 %", "-50 % (-50 to -48)"),
        "tokens/s after the first": ("4.7x", "3.00x (3.00 to 3.00)"),
        "peak memory": ("-11 to -16 %", "-16 % (-16 to -16)"),
        "FLOPs of the whole request": ("-22 %", f"{round(100 * (ours / theirs - 1))} %"),
    }
    for name, (claim, answer) in expected.items():
        assert claim in lines[name]
        assert answer in lines[name]
    assert "Encoder-decoder: 8 + 4 layers, 0.6 M" in flat
    assert "decoder-only: 13 layers" in flat
    assert "cannot be repeated" in flat
    assert "coverage 75%" in flat
    assert "None" not in text
    assert text.endswith("\n")


def test_markdown_has_even_tables(study: Study) -> None:
    blocks = render(study, "md").split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 2
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1


def test_json_holds_everything(study: Study) -> None:
    assert decode(Study, json.loads(render(study, "json"))) == decode(Study, encode(study))


def test_a_loss_is_called_one() -> None:
    worse = row("encoder-decoder", 128, [(40.0, 3.0), (44.0, 3.0)], 125.0)
    better = row("decoder-only", 128, [(20.0, 3.0), (20.0, 3.0)], 100.0)
    text = render(conclude([TINY], "cb4", NEW, profile(worse, better)), "table")
    assert "+110 % (+100 to +120)" in text
    assert "+25 % (+25 to +25)" in text
    assert "cb4 weights" in text


def test_one_round_has_no_interval() -> None:
    rows = (
        row("encoder-decoder", 128, [(10.0, 1.0)], 80.0),
        row("decoder-only", 128, [(20.0, 2.0)], 100.0),
    )
    text = render(conclude([TINY], "none", NEW, profile(*rows)), "table")
    assert "-50 %" in text
    assert "(-50" not in text
    assert "parentheses" not in text
    assert "1 request in 1 round," in text


def test_failures_and_warnings_are_shown() -> None:
    warned = replace(BOTH, warnings=("Other programs ran.",))
    failed = profiles.failed("no memory.", ALONE.configuration)
    study = conclude([TINY], "none", NEW, replace(profile(warned, failed), complete=False))
    timed = [answer for answer in study.answers if "flops" not in answer.metric]
    assert all(answer.ratio is None for answer in timed)
    text = " ".join(render(study, "table").split())
    assert "* encoder-decoder 128 (tiny): Other programs ran." in text
    assert "* decoder-only 128 (tiny): no memory." in text
    assert "encoder-decoder*" in text
    assert "Interrupted" in text


def test_shapes_and_prompts_are_not_mixed() -> None:
    small = [
        row("encoder-decoder", 128, [(10.0, 1.0)], 80.0, "small"),
        row("decoder-only", 128, [(50.0, 1.0)], 80.0, "small"),
    ]
    longer = [
        row("encoder-decoder", 256, [(10.0, 1.0)], 80.0),
        row("decoder-only", 256, [(30.0, 1.0)], 80.0),
    ]
    study = conclude([TINY, SHAPES["small"]], "none", NEW, profile(BOTH, ALONE, *longer, *small))
    found = {(a.shape, a.prompt): a.ratio for a in study.answers if a.metric == "ttft_ms"}
    assert found == {("tiny", 128): 2.0, ("tiny", 256): 3.0, ("small", 128): 5.0}
    text = render(study, "table")
    assert text.count("time to first token") == 2
    assert [line.count("prompt 256") for line in text.splitlines() if "paper  " in line] == [1, 0]


def test_other_formats_are_refused(study: Study) -> None:
    with pytest.raises(InputError, match="table, md or json"):
        render(study, "csv")
