"""The built-in checkpoint says what its model card promises, through the command line."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import edgedec
from edgedec.cli import cli


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["run", "g2p", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def evaluation(root: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(
        (root / "src/edgedec/checkpoints/g2p/eval.json").read_text(encoding="utf-8")
    )
    return card


def recipe(root: Path, name: str) -> ModuleType:
    """A module of examples/g2p; the repository itself is not on the path."""
    spec = importlib.util.spec_from_file_location(f"g2p_{name}", root / f"examples/g2p/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_deployment() -> None:
    assert run("deployment") == "D IH0 P L OY1 M AH0 N T\n"


def test_beams_and_greedy_agree_on_an_easy_word() -> None:
    assert run("deployment", "--num-beams", "4") == run("deployment")


def test_a_stream_is_the_same_text() -> None:
    assert run("deployment", "--stream") == run("deployment")


def test_two_streams_take_turns() -> None:
    generator = edgedec.load("g2p", threads=1)
    words = ("deployment", "encyclopedia")
    alone = [[chunk.token for chunk in generator.stream(word)] for word in words]
    turns = zip_longest(*(generator.stream(word) for word in words))
    together = [[chunk.token for chunk in column if chunk] for column in zip(*turns, strict=True)]
    assert together == alone


@pytest.mark.slow
def test_word_error_rate_of_the_model_card(
    root: Path, shared: Path, evaluation: dict[str, Any], tmp_path: Path
) -> None:
    split = recipe(root, "data").load_split(shared / "data/cmudict/cmudict.txt.gz")
    words = tmp_path / "words.txt"
    words.write_text("\n".join(split.test) + "\n", encoding="utf-8")
    said = run("-f", str(words), "--batch-size", "64").splitlines()
    rates = recipe(root, "metrics").score(said, list(split.test.values()))
    assert rates.words == evaluation["words"]
    for measure in ("word_error_rate", "word_error_rate_without_stress", "phoneme_error_rate"):
        assert getattr(rates, measure) == pytest.approx(evaluation[measure], abs=0.001), measure
