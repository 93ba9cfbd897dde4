"""`edgedec profile`: from bundles to tables, files and exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from edgedec.runtime.profiling.record import load_profile

Invoke = Callable[..., Result]
QUICK = ("-s", "8", "-n", "4", "-r", "2", "--rounds", "2", "-w", "0", "-t", "1")


def fails(result: Result, sentence: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence in line
    assert result.stdout == ""


def profiled(invoke: Invoke, *arguments: str) -> dict[str, Any]:
    result = invoke("profile", *arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_table_of_a_sweep(invoke: Invoke) -> None:
    result = invoke("profile", "g2p", *QUICK, "-s", "8,16", "-b", "1,2")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if "e2e" in line and "+4" in line]
    assert sorted((row[0], row[1]) for row in rows) == [
        ("1", "e2e16+4"),
        ("1", "e2e8+4"),
        ("2", "e2e16+4"),
        ("2", "e2e8+4"),
    ]
    assert "2 rounds" in result.stdout


def test_two_bundles_and_every_file(invoke: Invoke, staged_g2p: Path, tmp_path: Path) -> None:
    names = {
        option: str(tmp_path / name)
        for option, name in (("--save", "p.json"), ("--html", "p.html"), ("--trace", "t.json"))
    }
    files = [part for pair in names.items() for part in pair]
    result = invoke("profile", "g2p", str(staged_g2p), *QUICK, *files)
    assert result.exit_code == 0, result.output
    assert "Ratios against" in result.stdout
    profile = load_profile(names["--save"])
    assert profile.complete
    assert len(profile.bundles) == 2
    assert all(row.operators is not None for row in profile.rows)
    assert Path(names["--html"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    trace = json.loads(Path(names["--trace"]).read_text(encoding="utf-8"))
    assert {event["pid"] for event in trace["traceEvents"]} == {1, 2}
    again = invoke("profile", "--from", names["--save"])
    assert again.exit_code == 0
    assert again.stdout == result.stdout


def test_formats_say_the_same(invoke: Invoke, tmp_path: Path) -> None:
    file = str(tmp_path / "p.json")
    profile = profiled(invoke, "g2p", *QUICK, "--save", file)
    e2e = profile["rows"][0]["metrics"]["e2e_ms"]["p50"]
    (line,) = invoke("profile", "--from", file, "-o", "jsonl").stdout.splitlines()
    assert json.loads(line)["metrics"]["e2e_ms"]["p50"] == e2e
    (row,) = csv.DictReader(io.StringIO(invoke("profile", "--from", file, "-o", "csv").stdout))
    assert e2e in {float(value) for name, value in row.items() if name.startswith("e2e_ms")}
    markdown = invoke("profile", "--from", file, "-o", "md").stdout
    assert any(line.startswith("| ") and f"{e2e:.3g}" in line for line in markdown.splitlines())


def test_real_text(invoke: Invoke, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("model\n\nnaïve\n  \nlanguage\n", encoding="utf-8")
    result = invoke("profile", "g2p", "-f", str(words), "--rounds", "1", "-r", "3", "-o", "json")
    assert result.exit_code == 0, result.output
    assert "2 empty lines" in result.stderr
    (row,) = json.loads(result.stdout)["rows"]
    assert row["configuration"]["text"] == "words.txt"
    assert row["metrics"]["tokenize_ms"]["n"] == 3
    samples = [sample for turn in row["turns"] for sample in turn["samples"]]
    assert len({sample["new_tokens"] for sample in samples}) > 1


def test_a_text_is_read_once_by_default(invoke: Invoke, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("".join(f"{'ab' * n}\n" for n in range(1, 24)))
    profile = profiled(invoke, "g2p", "-f", str(words), "--rounds", "1", "-b", "2")
    assert profile["effort"]["repetitions"] == 12


def test_depth_policies(invoke: Invoke, staged_g2p: Path) -> None:
    depths = ("--depth", "full,layerskip:exit=2,drafts=3", "--depth", "unified:layers=2")
    profile = profiled(invoke, str(staged_g2p), *QUICK, *depths)
    layers = {
        row["configuration"]["depth"]: row["metrics"]["mean_layers"]["p50"]
        for row in profile["rows"]
    }
    assert layers["full"] == 4
    assert layers["unified:layers=2"] == 2
    assert profile["rows"][1]["metrics"]["acceptance"] is not None


def test_a_broken_bundle_fails_its_rows_only(invoke: Invoke, tmp_path: Path) -> None:
    from edgedec.builtin import resolve_bundle

    broken = tmp_path / "broken"
    shutil.copytree(resolve_bundle("g2p"), broken)
    (broken / "decoder.onnx").write_bytes(b"x")
    result = invoke("profile", "g2p", str(broken), str(tmp_path / "none"), *QUICK, "-o", "json")
    assert result.exit_code == 1, result.output
    good, bad, none = json.loads(result.stdout)["rows"]
    assert good["error"] is None
    assert good["metrics"]["e2e_ms"]["n"] == 2
    assert "decoder.onnx" in bad["error"]
    assert none["metrics"]["e2e_ms"] is None
    assert "none" in none["error"]
    fails(invoke("profile", str(broken), *QUICK), "decoder.onnx")


def test_what_no_row_can_do_is_an_error(invoke: Invoke) -> None:
    fails(invoke("profile", "g2p", *QUICK, "--depth", "layerskip"), "layerskip")
    fails(invoke("profile", "g2p", *QUICK, "--depth", "deep"), "deep")
    fails(invoke("profile", "g2p", *QUICK, "--device", "tpu"), "there is no device 'tpu'")


@pytest.mark.parametrize(("simulator", "said"), [(True, True), (False, False)])
def test_what_times_of_a_simulator_are_worth(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, simulator: bool, said: bool
) -> None:
    monkeypatch.setattr("edgedec.devices.qnn_library.missing", lambda: None)
    monkeypatch.setattr("edgedec.devices.qnn_library.is_simulator", lambda: simulator)
    result = invoke("profile", "g2p", *QUICK, "--device", "decoder=qnn:sm8650")
    assert result.exit_code != 0  # its graphs have no fixed shapes
    assert ("say nothing about a phone" in result.stderr) == said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Name a bundle"),
        (("g2p", "-s", "0"), "-s '0' is not a list"),
        (("g2p", "-n", "4-1"), "-n '4-1' is not a list"),
        (("g2p", "-f", "none.txt"), "Cannot read none.txt"),
        (("g2p", "-s", "8", "-f", "x.txt"), "not both"),
        (("g2p", "g2p"), "named twice"),
        (("nothing",), "no bundle nothing"),
        (("g2p", "--compare", "none.json"), "none.json"),
        (("g2p", "--fail-over", "much"), "not a percentage"),
        (("g2p", "--save", "no/such/folder.json"), "Cannot write no/such/folder.json"),
        (("g2p", "--from", __file__), "does not take BUNDLE"),
        (("--from", __file__, "-s", "8", "--ops"), "does not take --ops, --source-tokens"),
        (("g2p", "--fail-over", "1%"), "--fail-over goes with --compare only"),
        (("g2p", "--fail-undecided"), "--fail-undecided goes with --compare only"),
        (("g2p", "--remote-python", "p"), "--remote-python goes with --via only"),
        (("g2p", "--save", "a", "--html", "a"), "a is named twice"),
        (("g2p", "--baseline", "ggml"), "give hf or hf=CHECKPOINT"),
        (("g2p", "--shape", "small"), "belong to --architecture-study"),
        (("g2p", "--architecture-study"), "give no BUNDLE"),
        (("--architecture-study", "-o", "csv"), "prints table, md, json, not csv"),
        (("--architecture-study", "--depth", "full"), "does not take --depth"),
        (("--architecture-study", "--from", "x"), "does not take --from"),
        (("--architecture-study", "-t", "1,2"), "one number for -n and one for -t"),
    ],
)
def test_refused_before_anything_is_measured(
    invoke: Invoke, arguments: tuple[str, ...], sentence: str
) -> None:
    began = time.monotonic()
    fails(invoke("profile", *arguments), sentence)
    assert time.monotonic() - began < 60


def test_a_file_that_is_read_is_not_written(invoke: Invoke, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(profiled(invoke, "g2p", *QUICK)))
    fails(invoke("profile", "g2p", "--compare", str(old), "--save", str(old)), "named twice")


def test_compare(invoke: Invoke, tmp_path: Path) -> None:
    now = profiled(invoke, "g2p", *QUICK, "-r", "8", "--rounds", "8", "--in-process")
    assert now["rows"][0]["metrics"]["cold_start_ms"] is None
    new = tmp_path / "new.json"
    new.write_text(json.dumps(now))
    same = invoke("profile", "--from", str(new), "--compare", str(new))
    assert same.exit_code == 0, same.output
    assert "None of 3 figures grew by more than 5%" in same.stdout
    for turn in now["rows"][0]["turns"]:
        for sample in turn["samples"]:
            for name in ("e2e_ms", "steps_ms"):
                sample[name] /= 2
            sample["token_ms"] = [time / 2 for time in sample["token_ms"]]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(now))
    slower = invoke("profile", "--from", str(new), "--compare", str(old), "--fail-over", "50%")
    assert slower.exit_code == 1, slower.output
    assert "slower" in slower.stdout
    allowed = invoke("profile", "--from", str(new), "--compare", str(old), "--fail-over", "150")
    assert allowed.exit_code == 0, allowed.output
    data = invoke("profile", "--from", str(new), "--compare", str(old), "-o", "json")
    assert data.exit_code == 1
    assert json.loads(data.stdout)["rows"]
    assert "lower" in data.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_control_c_keeps_what_was_measured(tmp_path: Path) -> None:
    saved = tmp_path / "p.json"
    command = [sys.executable, "-m", "edgedec", "profile", "-v", "g2p", "-s", "8", "-n", "4"]
    process = subprocess.Popen(
        [*command, "-r", "900", "--rounds", "900", "--save", str(saved), "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "turn 2 is over" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Interrupted" in stderr
    profile = load_profile(saved)
    assert not profile.complete
    assert json.loads(stdout)["complete"] is False
    assert 2 <= len(profile.rows[0].turns) < 900


def test_via_a_command(invoke: Invoke) -> None:
    profile = profiled(invoke, "g2p", *QUICK, "--via", "sh -c", "--remote-python", sys.executable)
    (row,) = profile["rows"]
    assert row["metrics"]["e2e_ms"]["n"] == 2
    assert len(row["turns"]) == 2


def test_via_what_is_no_command(invoke: Invoke) -> None:
    result = invoke("profile", "g2p", *QUICK, "--via", "no-such-command -x")
    assert result.exit_code in {2, 3}
    assert "no-such-command" in result.stderr
