"""What `edgedec adapt` refuses: one sentence, exit code 2, and nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.adapt.checkpoints import write_pairs, write_t5

from edgedec.adapt.options import AdaptOptions
from edgedec.adapt.pipeline import adapt
from edgedec.adapt.work import STATE
from edgedec.cli import cli

pytest.importorskip("torch")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_t5(tmp_path / "base")
    write_pairs(tmp_path / "pairs.tsv")
    return tmp_path


def run(*arguments: str, text: str = "pairs.tsv", depth: str = "unified:layers=2") -> Result:
    given = ["adapt", "base", "-o", "out", "--text", text, "--depth", depth, "--rank", "2"]
    common = ["--device", "cpu", "--batch-tokens", "256", "--threads", "1"]
    return CliRunner().invoke(cli, [*given, *common, *arguments], prog_name="edgedec")


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    message = result.stderr.strip()
    assert message.startswith("Error: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_run_and_what_it_says(folder: Path) -> None:
    result = run("--steps", "2")
    assert result.exit_code == 0, result.output
    assert "loss" in result.stdout
    assert "agreement with full depth" in result.stdout
    refused(run("--steps", "2"), "'out' exists", "--force")
    assert run("--steps", "2", "--force", "--json").exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"base", "out", "pairs.tsv"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "2", "--minutes", "1"], ["--steps and --minutes"]),
        (["--rank", "0"], ["--rank 0", "give 1 to 4,096"]),
        (["--steps", "0"], ["--steps 0", "give 1 to 1,000,000,000"]),
        (["--lr", "nan"], ["--lr"]),
        (["--minutes", "-1"], ["--minutes -1", "give more than 0, up to 1,000,000"]),
        (["--resume"], ["no interrupted run", "--resume"]),
    ],
)
def test_options(folder: Path, arguments: list[str], words: list[str]) -> None:
    refused(run(*arguments), *words)
    assert {path.name for path in folder.iterdir()} == {"base", "pairs.tsv"}


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        ("ngram", ["ngram needs no training"]),
        ("full", ["full needs no training"]),
        ("nothing", ["no such policy"]),
        ("unified:layers=9", ["layers=9", "4"]),
        ("layerskip:exit=4", ["exit=4"]),
        ("first:protect=2", ["always runs all 4 layers"]),
        ("first:threshold=0", ["always runs all 4 layers"]),
        ("first:layers=4", ["always runs all 4 layers"]),
        ("lora-drop:cycle=1", ["lora-drop:cycle=1 always runs all 4 layers"]),
        ("unified:layers=4", ["always runs all 4 layers"]),
        ("skipdecode:min=4,max=4", ["always runs all 4 layers"]),
        ("d3:alpha=1", ["always runs all 4 layers"]),
        ("early-exit:threshold=1", ["always runs all 4 layers"]),
        ("early-exit:measure=meta,threshold=1", ["always runs all 4 layers"]),
    ],
)
def test_policies(folder: Path, depth: str, words: list[str]) -> None:
    refused(run(depth=depth), *words)
    assert {path.name for path in folder.iterdir()} == {"base", "pairs.tsv"}


def test_texts(folder: Path) -> None:
    refused(run(text="nowhere.txt"), "nowhere.txt cannot be read")
    (folder / "empty.txt").write_text("\n")
    refused(run(text="empty.txt"), "empty.txt has no text")
    (folder / "one.txt").write_text("abc\n")
    refused(run(text="one.txt"), "usable samples")
    (folder / "base" / "tokenizer.json").unlink()
    refused(run(), "tokenizer")


def test_the_place_of_something_else(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "letter.txt").write_text("dear\n")
    refused(run("--force"), "was not made by edgedec adapt")
    assert (folder / "out" / "letter.txt").read_text() == "dear\n"


def test_an_interrupted_run_is_not_forgotten(folder: Path) -> None:
    options = AdaptOptions(
        "unified:layers=2", Path("pairs.tsv"), rank=2, steps=5, batch_tokens=256, device="cpu"
    )
    with pytest.raises(KeyboardInterrupt):
        adapt("base", "out", options, stopped=lambda: True)
    work = folder / ".out.adapting"
    assert (work / STATE).exists()
    refused(run("--steps", "5"), "interrupted", "--resume", "--force")
    refused(run("--steps", "6", "--resume"), "had --steps 5, this one has --steps 6")
    refused(run("--minutes", "1", "--resume"), "had --steps 5, this one has no --steps")
    (folder / "other.tsv").write_text("abc\tcba\n")
    refused(run("--steps", "5", "--resume", text="other.tsv"), "had another text: give the same")
    (work / STATE).write_bytes(b"damaged")
    refused(run("--steps", "5", "--resume"), "cannot be used", "--force")
    with (folder / "base" / "config.json").open("a") as config:
        config.write("\n")
    refused(run("--steps", "5", "--resume"), "had another checkpoint: give the same")
    assert run("--steps", "1", "--force").exit_code == 0
    assert not work.exists()


def test_without_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run()
    assert result.exit_code == 3
    assert "edgedec[torch]" in result.stderr
