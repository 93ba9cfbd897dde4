"""One turn: its samples say what happened, and what a bundle cannot do is one sentence."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.models import make
from tests.profiling.plans import job, row, text_row

from edgedec.errors import BundleError, InputError
from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.generator import Generator, Result
from edgedec.runtime.profiling.metrics import tokens_per_s, tpot_ms, ttft_ms
from edgedec.runtime.profiling.plan import Job
from edgedec.runtime.profiling.record import Configuration, Sample, Turn
from edgedec.runtime.profiling.request import requests_of, synthetic_ids, usable_lines
from edgedec.runtime.profiling.turn import Start, carry_out
from edgedec.runtime.text import Tokenizer

WORDS = ("deployment", "edge", "ünïcödé 漢字 🙂", "שלום", "computer science", "x")


def measured(task: Job) -> Turn:
    turn = carry_out({}, Start(0.0, 0.0), task)["turn"]
    assert isinstance(turn, Turn)
    return turn


def samples(folder: str | Path, configuration: Configuration, **options: object) -> list[Sample]:
    return list(measured(job(str(folder), configuration, **options)).samples)  # type: ignore[arg-type]


def phases(sample: Sample) -> float:
    parts = (
        sample.tokenize_ms,
        sample.prepare_ms,
        sample.encode_ms,
        sample.first_step_ms,
        sample.steps_ms,
        sample.detokenize_ms,
    )
    return sum(part for part in parts if part is not None)


def middle(ratios: list[float]) -> float:
    """Of several requests, so that one which was disturbed does not decide."""
    assert len(ratios) >= 5
    return median(ratios)


@pytest.mark.parametrize(
    "configuration", [row(source=24, new=24), row(batch=3, threads=None), text_row(batch=2)]
)
def test_phases_are_the_request(g2p: str, configuration: Configuration) -> None:
    found = samples(g2p, configuration, repetitions=7, inputs=WORDS)
    assert middle([phases(sample) / sample.e2e_ms for sample in found]) == pytest.approx(
        1, abs=0.03
    )
    # Runs, plans and searches lie inside of the steps, and are most of them.
    for sample in found:
        assert sample.steps_ms is not None
        assert sample.plan_ms is not None
        assert sample.search_ms is not None
        inside = sum(sample.runs_ms.values()) + sample.plan_ms + sample.search_ms
        assert 0 < inside <= sample.steps_ms + 1e-3


def test_first_token_and_the_others_are_the_request(g2p: str) -> None:
    found = samples(g2p, row(source=24, new=32), repetitions=7)
    ratios = []
    for sample in found:
        assert len(sample.token_ms) == 32
        assert list(sample.token_ms) == sorted(sample.token_ms)
        first, others = ttft_ms(sample), tpot_ms(sample)
        assert first is not None
        assert others is not None
        assert first + 31 * others == pytest.approx(sample.e2e_ms)
        # The same from the tokens themselves: after the last one little is left to do.
        between = (sample.token_ms[-1] - first) / 31
        ratios.append((first + 31 * between) / sample.e2e_ms)
    assert middle(ratios) == pytest.approx(1, abs=0.01)


def test_synthetic_requests_have_exactly_the_lengths_asked_for(g2p: str) -> None:
    for sample in samples(g2p, row(source=9, new=11, batch=3)):
        assert (sample.inputs, sample.source_tokens, sample.new_tokens) == (3, 27, 33)
        assert len(sample.token_ms) == 11
        assert sample.steps == 10
        assert sample.tokenize_ms is None
        assert sample.encode_ms is not None
        assert sample.exits == {"4": 30}
        assert sample.drafted is None
        assert sample.cache_bytes is not None
        assert sample.cross_bytes is not None


def test_one_token_has_no_steps(g2p: str) -> None:
    for sample in samples(g2p, row(new=1)):
        assert len(sample.token_ms) == 1
        assert (sample.steps, sample.runs_ms, sample.mean_layers) == (0, {}, None)
        assert tpot_ms(sample) is None
        assert tokens_per_s(sample) is None


def test_text_is_tokenized_and_ends_where_the_checkpoint_says(g2p: str) -> None:
    tokenizer = Tokenizer.open(Path(g2p) / "tokenizer.json")
    counts = [len(ids) for ids in tokenizer.encode(WORDS)]
    found = samples(g2p, text_row(batch=2), repetitions=4, inputs=WORDS)
    assert [sample.source_tokens for sample in found] == [
        counts[0] + counts[1],
        counts[2] + counts[3],
        counts[4] + counts[5],
        counts[0] + counts[1],  # from the beginning again
    ]
    assert all(sample.tokenize_ms for sample in found)
    # The longest row has a step for each of its tokens; others may have ended before.
    assert all(len(s.token_ms) <= s.new_tokens <= 2 * len(s.token_ms) for s in found)
    limited = samples(g2p, text_row(new=3), repetitions=2, inputs=WORDS[:1])
    assert [sample.new_tokens for sample in limited] == [3, 3]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder-only model that reads and writes up to 64 tokens, and has all variants."""
    folder = tmp_path_factory.mktemp("worker") / "qwen"
    make("qwen", folder, cuts=(0, 1, 2, 3))
    return folder


@pytest.mark.parametrize(
    ("bundle", "depth"),
    [
        ("staged_g2p", "free:exit=2"),
        ("qwen", "early-exit:threshold=0.3"),
        ("qwen", "skipdecode:min=1,max=3"),
    ],
)
def test_policies_say_how_deep_tokens_went(
    bundle: str, depth: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(bundle)
    for sample in samples(folder, row(depth=depth, batch=2, new=12), repetitions=2):
        assert sample.exits is not None
        assert sum(sample.exits.values()) == 22
        assert sample.mean_layers is not None
        assert 0 < sample.mean_layers <= 4
        assert len(sample.token_ms) == 12


def test_policies_that_take_inputs_one_by_one(staged_g2p: Path) -> None:
    task = row(depth="layerskip:exit=2,drafts=3", batch=3, new=10)
    for sample in samples(staged_g2p, task, repetitions=2):
        assert (sample.inputs, sample.new_tokens, len(sample.token_ms)) == (3, 30, 30)
        assert sample.steps == 27
        assert sample.drafted
        assert sample.accepted is not None
        assert phases(sample) == pytest.approx(sample.e2e_ms, rel=0.2)
        speed = tokens_per_s(sample)
        assert speed is not None
        assert sample.steps_ms == pytest.approx(27e3 / speed)


def test_decoder_only_models_read_a_prompt(qwen: Path) -> None:
    for sample in samples(qwen, row(source=20, new=44, batch=2)):
        assert (sample.source_tokens, sample.new_tokens) == (40, 88)
        assert sample.encode_ms is None
        assert sample.cross_bytes is None


def test_a_trained_decoder_only_model(shared: Path, tmp_path: Path) -> None:
    folder = export_checkpoint(
        shared / "checkpoints" / "lm-layerskip", tmp_path / "lm", stages="all", verify=False
    )
    for depth in ("full", "layerskip:exit=2,drafts=3"):
        found = samples(folder, text_row(new=12, depth=depth), repetitions=6, inputs=WORDS)
        assert all(sample.encode_ms is None for sample in found)
        assert all(len(sample.token_ms) == sample.new_tokens for sample in found)
        assert middle([phases(sample) / sample.e2e_ms for sample in found]) == pytest.approx(
            1, abs=0.03
        )


@pytest.mark.parametrize(
    ("bundle", "configuration", "sentence"),
    [
        ("t5", row("T", source=65), "T reads at most 64 source tokens, not 65: use a smaller -s"),
        ("t5", row("T", new=64), "T generates at most 63 tokens, not 64: use a smaller -n"),
        ("qwen", row(source=20, new=45), "44 tokens after a prompt of 20, not 45: use a smaller"),
        ("qwen", row(source=64, new=1), "64 tokens, prompt included, not 64 and new ones: use a"),
        ("qwen", text_row(), "no tokenizer"),
        ("g2p", row(depth="nonsense"), "no such policy"),
        ("g2p", row(depth="early-exit"), "--depth early-exit"),  # it is not cut into stages
        ("g2p", row(threads=5000), "threads must be"),
    ],
)
def test_what_a_bundle_cannot_do_is_said(
    bundle: str,
    configuration: Configuration,
    sentence: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if bundle == "t5":
        folder = make("t5", tmp_path / "t5").bundle.folder
    else:
        folder = request.getfixturevalue(bundle)
    with pytest.raises(InputError, match=sentence):
        samples(folder, configuration, inputs=WORDS)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a folder"):
        samples(tmp_path / "none", row())


def test_bundles_are_opened_once(g2p: str) -> None:
    kept: dict = {}  # type: ignore[type-arg]
    first = carry_out(kept, Start(0.0, 0.0), job(g2p, row(), repetitions=1))["turn"]
    again = carry_out(kept, Start(0.0, 0.0), job(g2p, row(batch=2), repetitions=1))["turn"]
    assert len(kept) == 1
    assert first.load_ms == again.load_ms
    # Their processes had other work before.
    assert (again.start_ms, again.imports_ms, again.memory) == (None, None, None)


def test_the_first_token_and_warming_up_do_not_count(
    g2p: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    generate = Generator.generate

    def listen(self: Generator, inputs: list[list[int]], **options: Any) -> list[Result]:
        asked.append((inputs, options["max_new_tokens"]))
        return generate(self, inputs, **options)

    monkeypatch.setattr(Generator, "generate", listen)
    found = samples(g2p, row(new=8), repetitions=2, warmup=3)
    assert [limit for _, limit in asked] == [1, 8, 8, 8, 8, 8]
    assert [inputs for inputs, _ in asked[4:]] == [inputs for inputs, _ in asked[1:3]]
    assert len(found) == 2


def test_the_same_requests_for_the_same_seed_and_number(g2p: str) -> None:
    manifest = open_bundle(g2p).manifest
    whole = requests_of(job(g2p, row(batch=2)), manifest)
    later = requests_of(job(g2p, row(batch=2), first=2), manifest)
    assert whole.inputs(2) == later.inputs(0)
    distinct = {tuple(ids) for number in range(3) for ids in whole.inputs(number)}
    assert len(distinct) == 6


@given(st.integers(1, 300), st.integers(5, 60), st.sets(st.integers(0, 3)), st.integers(0, 9))
def test_synthetic_ids_are_ids_and_not_special(
    count: int, vocab: int, special: set[int], seed: int
) -> None:
    ids = synthetic_ids(count, vocab, special, (seed, 0, 0))
    assert len(ids) == count
    assert set(ids) <= set(range(vocab)) - special


def test_synthetic_ids_are_uniform() -> None:
    counts = Counter(synthetic_ids(9000, 12, {0, 5, 11}, (1, 2, 3)))
    assert len(counts) == 9
    # 9 standard deviations of a binomial of 9000 with 1/9
    assert all(abs(count - 1000) < 9 * math.sqrt(1000 * 8 / 9) for count in counts.values())


def test_blank_lines_are_skipped_and_said() -> None:
    notes: list[str] = []
    assert usable_lines(["", "a", " \t", "b "], notes.append) == ["a", "b "]
    assert notes == ["skipped 2 empty lines of the text."]
    assert usable_lines(["a"], notes.append) == ["a"]
    assert len(notes) == 1
    for nothing in ([], ["", "  "]):
        with pytest.raises(InputError, match="no line that is not empty"):
            usable_lines(nothing)


def test_a_model_of_special_tokens_only_is_refused() -> None:
    with pytest.raises(InputError, match="special"):
        synthetic_ids(1, 3, {0, 1, 2, 9}, (0, 0, 0))


def test_an_error_of_a_text_names_the_line(g2p: str) -> None:
    lines = ("model", f"{'ab' * 40000}")
    wanted = job(g2p, text_row(), repetitions=2, warmup=0, inputs=lines)
    with pytest.raises(InputError, match=r"words\.txt, line 'abab(ab)*\.\.\.': "):
        carry_out({}, Start(0.0, 0.0), wanted)
