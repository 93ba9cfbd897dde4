"""`edgedec calibrate-depth`: from a text to a table in the bundle, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from edgedec.builtin import resolve_bundle
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.manifest import BiasTable, Static, StaticDecoder

Invoke = Callable[..., Result]
PAIRS = {
    "deployment": "D IH0 P L OY1 M AH0 N T",
    "language": "L AE1 NG G W AH0 JH",
    "model": "M AA1 D AH0 L",
}


@pytest.fixture
def staged(staged_g2p: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(staged_g2p, tmp_path / "g2p"))


@pytest.fixture
def words(tmp_path: Path) -> str:
    file = tmp_path / "words.tsv"
    file.write_text("".join(f"{word}\t{said}\n" for word, said in PAIRS.items()))
    return str(file)


def fails(result: Result, sentence: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence in line
    assert result.stdout == ""


def test_from_a_text_to_auto(invoke: Invoke, staged: Path, words: str) -> None:
    depths = ("--depth", "layerskip:exit=2,drafts=3", "--depth", "unified:layers=2")
    result = invoke("calibrate-depth", str(staged), "--text", words, *depths, "--rounds", "1")
    assert result.exit_code == 0, result.output
    head, full, *others = result.stdout.splitlines()
    assert "quality" in head
    assert full.split()[:3] == ["*", "full", "1.0000"]
    assert len(others) == 2
    table = open_bundle(staged).manifest.depth
    assert table is not None
    assert (table.text, table.inputs, table.measure) == ("words.tsv", 3, "agreement")
    assert "full" in [point.depth for point in table.points]
    assert "tokens were compared: so few say little" in result.stderr
    assert "replaces" not in result.stderr
    said = invoke("run", str(staged), "model", "--depth", "auto:quality=1", "--stats", "--json")
    record, last = map(json.loads, said.stdout.splitlines())
    assert record["text"] == PAIRS["model"]
    assert last["stats"]["depth"] in [point.depth for point in table.points]


def test_json_has_every_point(invoke: Invoke, staged: Path, words: str, tmp_path: Path) -> None:
    before = (staged / "edgedec.json").read_bytes()
    out = tmp_path / "copy"
    arguments = ("--text", words, "--depth", "unified:layers=3", "--rounds", "1", "-o", str(out))
    result = invoke("calibrate-depth", str(staged), *arguments, "--json", "--metric", "wer")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    full, other = report["points"]
    assert (report["bundle"], report["measure"], report["inputs"]) == (str(out), "wer", 3)
    assert (full["depth"], full["quality"], full["layers"], full["on_front"]) == (
        "full",
        1,
        4,
        True,
    )
    assert other["depth"] == "unified:layers=3"
    assert other["acceptance"] is None
    assert other["score"] >= 0
    assert (staged / "edgedec.json").read_bytes() == before
    table = open_bundle(out).manifest.depth
    assert table is not None
    assert len(table.points) == sum(point["on_front"] for point in report["points"])


def test_an_older_table(invoke: Invoke, staged: Path, words: str, tmp_path: Path) -> None:
    """What is replaced is said; a copy replaces nothing."""
    arguments = ("--depth", "unified:layers=3", "--rounds", "1", "--inputs", "1")
    assert invoke("calibrate-depth", str(staged), "--text", words, *arguments).exit_code == 0
    table = open_bundle(staged).manifest.depth
    assert table is not None
    said = f"replaces the bundle's depth table: {len(table.points)} points from words.tsv."
    copied = ("-o", str(tmp_path / "copy"))
    result = invoke("calibrate-depth", str(staged), "--text", words, *arguments, *copied)
    assert "replaces" not in result.stderr
    assert said in invoke("calibrate-depth", str(staged), "--text", words, *arguments).stderr


def test_enough_tokens(
    invoke: Invoke, staged: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedec.cli.calibrate_depth.FEW", 10)
    arguments = ("--depth", "unified:layers=3", "--rounds", "1")
    result = invoke("calibrate-depth", str(staged), "--text", words, *arguments)
    assert result.exit_code == 0, result.output
    assert "were compared" not in result.stderr


def test_what_a_bundle_cannot_run_is_named(invoke: Invoke, words: str, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(resolve_bundle("g2p"), tmp_path / "g2p"))
    result = invoke("calibrate-depth", str(bundle), "--text", words, "--rounds", "1")
    assert result.exit_code == 0, result.output
    assert "layerskip is left out: " in result.stderr
    assert "ngram" in result.stdout


def test_a_decoder_of_fixed_shapes(
    invoke: Invoke, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in full, which nothing has to be opened or measured for."""
    bundle = open_bundle(resolve_bundle("g2p"))
    table = BiasTable("decoder.bias.bin", 1, 40)
    static = Static(kv_heads=1, decoder=StaticDecoder(32, 39, 1, None, None, table))
    fixed = Bundle(bundle.folder, replace(bundle.manifest, static=static))
    monkeypatch.setattr("edgedec.runtime.bundle.open_bundle", lambda _: fixed)
    monkeypatch.setattr("edgedec.load", lambda *_, **__: pytest.fail("opened"))
    result = invoke("calibrate-depth", str(bundle.folder), "--text", words)
    fails(result, "does not go with a decoder of fixed shapes, which runs in full: use a bundle")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--depth", "first"], "no routers"),
        (["--depth", "unified:layers=9"], "the decoder has 4"),
        (["--depth", "nothing"], "no such policy"),
        (["-o", "."], ". exists: choose another name"),
        (["--rounds", "0"], "--rounds"),
        (["--metric", "taste"], "--metric"),
    ],
)
def test_errors(
    invoke: Invoke, staged_g2p: Path, words: str, arguments: list[str], sentence: str
) -> None:
    fails(invoke("calibrate-depth", str(staged_g2p), "--text", words, *arguments), sentence)


def test_texts_that_will_not_do(invoke: Invoke, staged_g2p: Path, tmp_path: Path) -> None:
    fails(invoke("calibrate-depth", str(staged_g2p), "--text", "nowhere.txt"), "nowhere.txt")
    plain = tmp_path / "plain.txt"
    plain.write_text("model\n")
    arguments = ("--text", str(plain), "--metric", "wer")
    fails(invoke("calibrate-depth", str(staged_g2p), *arguments), "has no targets")
