"""``edgedec profile --baseline hf``: transformers does the same work, and its time is taken."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from edgedec.builtin import CHECKPOINTS, resolve_bundle
from edgedec.errors import InputError, MissingDependencyError
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.profiling import turns
from edgedec.runtime.profiling.peers import transformers as peer
from edgedec.runtime.profiling.plan import Job, Plan
from edgedec.runtime.profiling.record import Configuration, Effort, Turn
from edgedec.runtime.profiling.request import requests_of
from edgedec.runtime.profiling.turn import Start

G2P = str(CHECKPOINTS / "g2p")
ROW = Configuration("a", "cpu", 1, 2, 5, 24, "full", program="transformers")
TEXT = replace(ROW, source_tokens=None, new_tokens=None, text="words.txt")
WORDS = ("deployment", "cat", "understanding")


def job_of(folder: str, configuration: Configuration = ROW, **changed: Any) -> Job:
    inputs = WORDS if configuration.source_tokens is None else ()
    job = Job(configuration, folder, "latency", 0, 2, 3, 1, 7, inputs, time.monotonic())
    return replace(job, **changed)


@dataclass
class Watched:
    """A model whose inputs are kept."""

    model: Any
    seen: list[dict[str, Any]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def generate(self, **given: Any) -> Any:
        self.model.generation_config = self.generation_config
        self.seen.append(given)
        return self.model.generate(**given)


def turn_of(job: Job) -> tuple[Turn, list[dict[str, Any]]]:
    """What is measured, and what transformers was asked for: the first token, then warm-ups."""
    threads = torch.get_num_threads()
    opened = peer._load(job.folder)
    watched = Watched(opened.model, [])
    kept = {job.folder: replace(opened, model=watched)}
    try:
        turn = peer.measure_turn(kept, Start(time.monotonic(), 0.0), job)
    finally:
        torch.set_num_threads(threads)
    return turn, watched.seen


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder-only checkpoint most of whose tokens end the text."""
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=list(range(4, 30)),
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = config.eos_token_id
    model.save_pretrained(folder)
    return str(folder)


def check_times(turn: Turn, steps: int) -> None:
    for sample in turn.samples:
        assert len(sample.token_ms) == steps
        assert list(sample.token_ms) == sorted(sample.token_ms)
        assert sample.token_ms[0] > 0
        assert sample.token_ms[-1] <= sample.e2e_ms
        assert sample.steps is None
        assert {sample.tokenize_ms, sample.encode_ms, sample.detokenize_ms} == {None}


def test_the_same_work_as_the_bundle_does(private_cache: Path) -> None:
    turn, seen = turn_of(job_of(G2P))
    bundle = open_bundle(resolve_bundle("g2p"))
    ours = requests_of(job_of(G2P), bundle.manifest)
    # first token, warm-up, two that count
    for number, given in zip((0, 0, 0, 1), seen, strict=True):
        assert given["input_ids"].tolist() == ours.inputs(number)
        assert given["attention_mask"].all()
    assert seen[0]["max_new_tokens"] == 1
    check_times(turn, 24)  # a word ends much earlier
    for sample in turn.samples:
        assert (sample.source_tokens, sample.new_tokens) == (2 * 5, 2 * 24)
    assert turn.start_ms is not None
    assert turn.imports_ms is not None
    assert turn.start_ms > turn.imports_ms
    assert turn.memory is not None


def test_texts_of_different_lengths(private_cache: Path) -> None:
    job = job_of(G2P, TEXT, started=None)
    turn, seen = turn_of(job)
    bundle = open_bundle(resolve_bundle("g2p"))
    generator = Generator(bundle, threads=1)
    # tied, so that both agree
    results = [generator.generate(list(words)) for words in (WORDS[:2], (WORDS[2], WORDS[0]))]
    for sample, result in zip(turn.samples, results, strict=True):
        assert sample.new_tokens == sum(len(one.tokens) for one in result)
        assert len(sample.token_ms) == max(len(one.tokens) for one in result)
    assert turn.samples[0].source_tokens == len("deployment") + len("cat") + 2
    assert not seen[2]["attention_mask"][1, -1]  # of the shorter word
    assert turn.start_ms is None
    assert turn.memory is None


def test_a_limit_for_texts(private_cache: Path) -> None:
    turn, _ = turn_of(job_of(G2P, replace(TEXT, new_tokens=2)))
    check_times(turn, 2)


def test_nothing_ends_synthetic_outputs_but_their_limit(llama: str) -> None:
    turn, seen = turn_of(job_of(llama))
    check_times(turn, 24)
    assert [sample.new_tokens for sample in turn.samples] == [2 * 24] * 2
    assert all(1 <= token < 4 for given in seen for token in given["input_ids"].flatten())


def test_prompts_are_padded_on_the_left(shared: Path) -> None:
    job = job_of(str(shared / "checkpoints" / "lm-layerskip"), replace(TEXT, new_tokens=3))
    turn, seen = turn_of(job)
    assert [row[0].item() for row in seen[1]["attention_mask"]].count(0) == 1
    assert seen[1]["attention_mask"][:, -1].all()
    assert all(len(sample.token_ms) <= 3 for sample in turn.samples)


def test_checkpoints_that_transformers_cannot_use(llama: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer in .*: without -f"):
        turn_of(job_of(llama, TEXT))
    with pytest.raises(InputError, match=r"is not a checkpoint's folder: it has no config.json"):
        turn_of(job_of(str(tmp_path / "none")))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mu"}))
    with pytest.raises(InputError, match=r"transformers cannot open the checkpoint .*ValueError"):
        turn_of(job_of(str(tmp_path)))


def test_inputs_that_are_too_long(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=30, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"transformers cannot generate here .*IndexError"):
        turn_of(job_of(str(tmp_path), replace(ROW, source_tokens=9)))


def test_rows_of_a_sweep(private_cache: Path, tmp_path: Path) -> None:
    """Through the worker's process: the real protocol."""
    plan = Plan(
        {"a": G2P, "b": str(tmp_path)},
        (ROW, replace(ROW, bundle="b")),
        Effort(rounds=1, repetitions=1, warmup=0, fresh=False, seed=0),
    )
    with closing(turns.measure(plan)) as events:  # type: ignore[type-var]
        found = list(events)
    assert [event.row for event in found] == [0, 1]
    assert found[0].turn is not None
    check_times(found[0].turn, 24)
    assert "is not a checkpoint's folder" in (found[1].error or "")


# Which checkpoint.


def test_the_checkpoint_that_a_bundle_was_made_from(
    private_cache: Path, staged_g2p: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert peer.resolve(staged_g2p, None) == G2P
    assert peer.resolve(resolve_bundle("g2p"), "g2p") == G2P
    (tmp_path / "g2p").mkdir()  # hides the name, but is not the one
    assert peer.resolve(staged_g2p, None) == G2P
    notes: list[str] = []
    assert peer.resolve(staged_g2p, str(G2P), notes.append) == G2P
    assert not notes
    other = shutil.copytree(G2P, tmp_path / "other")
    (other / "config.json").write_bytes((other / "config.json").read_bytes() + b"\n")
    assert peer.resolve(staged_g2p, str(other), notes.append) == str(other)
    assert "is not the checkpoint 'g2p'" in notes[0]
    # a folder beside, whose files must be the same
    bundle = shutil.copytree(staged_g2p, tmp_path / "bundle")
    manifest = json.loads((bundle / "edgedec.json").read_text())
    manifest["source"]["id"] = "mine"
    (bundle / "edgedec.json").write_text(json.dumps(manifest))
    shutil.copytree(G2P, tmp_path / "mine")
    assert peer.resolve(bundle, None) == "mine"
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"'mine', which .* --baseline hf=CHECKPOINT"):
        peer.resolve(bundle, None)
    manifest["source"]["id"] = "some/model"
    (bundle / "edgedec.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="'some/model', which"):
        peer.resolve(bundle, None)


def test_a_broken_bundle_is_left_to_its_rows(tmp_path: Path) -> None:
    assert peer.resolve(tmp_path / "none", None) == str(tmp_path / "none")


@pytest.mark.parametrize("given", ["no-such-folder", "a/b/c", "tests", ""])
def test_what_is_no_checkpoint(given: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    with pytest.raises(InputError, match="neither a checkpoint's folder"):
        peer.resolve(tmp_path, str(tmp_path / given) if given == "tests" else given)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch, staged_g2p: Path) -> None:
    monkeypatch.setattr(peer, "NEEDED", ("torch", "no_such_package"))
    with pytest.raises(MissingDependencyError, match="needs no_such_package: pip install"):
        peer.resolve(staged_g2p, None)
