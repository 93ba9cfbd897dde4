"""Every family of models against the implementation that its checkpoints were made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.parity import decoder_only, mu, seq2seq
from tests.parity.harness import NEW_TOKENS, TOLERANCE, Case, difference, tokens_of
from tests.parity.subject import Subject

CASES: list[Case] = [*seq2seq.CASES, *decoder_only.CASES, *mu.CASES]
ROUNDING = 2e-5
"""Between two ways of computing the same thing here, as a fraction of the logits' range."""

Record = Callable[[str, object], None]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    case: Case = request.param
    folder = tmp_path_factory.mktemp("parity")
    checkpoint, oracle = case.write(folder / "checkpoint")
    return Subject(case, folder, checkpoint, oracle)


def test_logits(subject: Subject, record_property: Record) -> None:
    distance = difference(subject.by_steps(), subject.compared)
    record_property("family", subject.generator().bundle.manifest.model["family"])
    record_property("difference", distance)
    assert distance <= TOLERANCE


def test_reference(subject: Subject) -> None:
    assert difference(subject.reference(), subject.expected) <= TOLERANCE


def test_one_pass_equals_steps(subject: Subject) -> None:
    steps = subject.by_steps()
    for count in sorted({1, 2, subject.case.target // 2, subject.case.target}):
        one_pass = subject.in_one_pass(count)
        assert difference(list(one_pass), [row[count - 1] for row in steps]) <= ROUNDING


def test_chunks_of_three_equal_steps(subject: Subject) -> None:
    steps = subject.by_steps()
    chunks = subject.by_steps(chunk=3)
    last = [0, *(min(i + 3, subject.case.target - 1) for i in range(0, subject.case.target - 1, 3))]
    assert difference(chunks, [row[last] for row in steps]) <= ROUNDING


@pytest.mark.parametrize("beams", [1, 4])
def test_tokens(subject: Subject, beams: int) -> None:
    expected = subject.oracle.generate(subject.inputs, beams)
    results = subject.generator().generate(subject.inputs, **options(beams))
    assert [result.tokens for result in results] == expected
    assert tokens_of(expected) > 5, "the model repeats itself: this compares nothing"


def test_one_row_alone(subject: Subject) -> None:
    """A single row has no padding, and its caches are shown in pieces."""
    alone = subject.alone(0)
    assert difference(alone.by_steps(), alone.compared) <= TOLERANCE
    chunks = alone.by_steps(chunk=3)
    assert difference([chunks[0][-1:]], [alone.compared[0][-1:]]) <= TOLERANCE
    for beams in (1, 4):
        both = [subject.generator().generate(s.inputs, **options(beams)) for s in (subject, alone)]
        assert both[0][0].tokens == both[1][0].tokens


def test_stages(subject: Subject) -> None:
    steps = subject.by_steps()
    for cuts in subject.case.cuts:
        assert len(subject.generator(cuts).bundle.manifest.stages) > (cuts != "all")
        assert difference(subject.by_steps(cuts), steps) <= ROUNDING
        for beams in (1, 4):
            whole, cut = (
                subject.generator(s).generate(subject.inputs, **options(beams))
                for s in (None, cuts)
            )
            assert [r.tokens for r in cut] == [r.tokens for r in whole]


def options(beams: int) -> dict[str, Any]:
    return {"max_new_tokens": NEW_TOKENS, "num_beams": beams}
