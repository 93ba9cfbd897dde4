"""`edgedec run`: inputs, outputs, and every way to get them wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.cli.conftest import FakeGenerator

import edgedec
from edgedec.builtin import resolve_bundle

Invoke = Callable[..., Result]


def fails(result: Result, sentence: str, code: int = 2) -> None:
    """Check that a command ended with one line `Error: ...` and printed no result."""
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence in line
    assert result.stdout == ""


def test_text(invoke: Invoke, bundle: str, generator: FakeGenerator) -> None:
    result = invoke("run", bundle, "hello|you")
    assert (result.exit_code, result.stdout) == (0, "HELLO\nYOU\n")
    assert generator.calls == [(["hello|you"], {})]


def test_options_reach_the_generator_and_only_those_given(
    invoke: Invoke, bundle: str, generator: FakeGenerator
) -> None:
    invoke("run", bundle, "x", "--max_new_tokens", "7", "--num-beams", "4")
    invoke("run", bundle, "x", "--early-stopping", "true", "--top-p", "0.5", "--seed", "0")
    invoke("run", bundle, "x", "--early-stopping", "never")
    assert [options for _, options in generator.calls] == [
        {"max_new_tokens": 7, "num_beams": 4},
        {"early_stopping": True, "top_p": 0.5, "seed": 0},
        {"early_stopping": "never"},
    ]


def test_file_gives_one_line_for_each_line(
    invoke: Invoke, bundle: str, generator: FakeGenerator, tmp_path: Path
) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes("\ufeffone\r\n\ntwo|more\n   \nétage\u2028x\nlast".encode())
    result = invoke("run", bundle, "-f", str(file), "--batch-size", "2")
    assert result.stdout == "ONE\n\nTWO\\nMORE\n\nÉTAGE\u2028X\nLAST\n"
    assert [batch for batch, _ in generator.calls] == [
        ["one"],
        ["two|more"],
        ["étage\u2028x", "last"],
    ]
    assert generator.first_rows == [0, 1, 2], "sampling must not depend on the batch size"


def test_standard_input_is_read_line_by_line(
    invoke: Invoke, bundle: str, generator: FakeGenerator
) -> None:
    for arguments in (["-"], ["-f", "-"]):
        result = invoke("run", bundle, *arguments, stdin="a\nb\n")
        assert result.stdout == "A\nB\n"
    assert all(len(batch) == 1 for batch, _ in generator.calls)


def test_json_lines(invoke: Invoke, bundle: str, generator: FakeGenerator) -> None:
    result = invoke("run", bundle, "-", "--json", stdin="é|\n\n")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"index": 0, "input": "é|", "text": "É\n", "tokens": [233, 124], "score": -0.5,
         "finish_reason": "stop"},
        {"index": 1, "input": "", "text": "", "tokens": [], "score": None,
         "finish_reason": "empty"},
    ]  # fmt: skip


def test_token_ids(invoke: Invoke, bundle: str, generator: FakeGenerator) -> None:
    assert invoke("run", bundle, "--ids", "5, 6 7").stdout == "5 6 7 1\n"
    record = json.loads(invoke("run", bundle, "--ids", "5", "--json").stdout)
    assert (record["text"], record["tokens"]) == (None, [5, 1])
    fails(invoke("run", bundle, "--ids", "five"), "'five' is not a list of token ids")


def test_text_that_is_not_utf8(invoke: Invoke, bundle: str, generator: FakeGenerator) -> None:
    fails(invoke("run", bundle, os.fsdecode(b"na\xefve")), "TEXT is not valid UTF-8")


def test_output_file(invoke: Invoke, bundle: str, generator: FakeGenerator, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    result = invoke("run", bundle, "é", "-o", str(target))
    assert (result.stdout, target.read_bytes()) == ("", "É\n".encode())


def test_stream(invoke: Invoke, bundle: str, generator: FakeGenerator) -> None:
    assert invoke("run", bundle, "a|b", "--stream").stdout == "A\nB\n"
    assert invoke("run", bundle, "-", "--stream", stdin="a|b\n\nc\n").stdout == "A\\nB\n\nC\n"


def test_stream_without_tokenizer_prints_ids(
    invoke: Invoke, bundle: str, generator: FakeGenerator
) -> None:
    generator.files = ()
    assert invoke("run", bundle, "--ids", "5 6", "--stream").stdout.split() == ["5", "6", "1"]


def test_an_empty_file_is_said_to_be_empty(
    invoke: Invoke, bundle: str, generator: FakeGenerator, tmp_path: Path
) -> None:
    file = tmp_path / "in.txt"
    file.touch()
    result = invoke("run", bundle, "-f", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "has no lines" in result.stderr
    assert invoke("run", bundle, "-f", str(file), "-q").stderr == ""
    assert not generator.calls


def test_bad_utf8_is_found_before_anything_runs(
    invoke: Invoke, bundle: str, generator: FakeGenerator, tmp_path: Path
) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes(b"fine\nna\xefve\n")
    fails(invoke("run", bundle, "-f", str(file)), "line 2: byte 0xef at column 3 is not UTF-8")
    assert not generator.calls


def test_bad_utf8_on_standard_input(invoke: Invoke, bundle: str, generator: FakeGenerator) -> None:
    fails(invoke("run", bundle, "-", stdin=b"\xff\n"), "standard input, line 1: byte 0xff")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "No input: give TEXT"),
        (["x", "-f", "y"], "either TEXT or -f FILE, not both"),
        ([""], "TEXT is empty"),
        (["  "], "TEXT is empty"),
        (["-f", "nowhere.txt"], "Cannot read nowhere.txt: No such file"),
        (["-f", "."], ". is a folder"),
        (["x", "-o", "nowhere/out.txt"], "Cannot write nowhere/out.txt"),
        (["-f", "x", "--stream"], "--stream shows one input at a time"),
        (["x", "--stream", "--json"], "--stream"),
        (["boom"], "The model refuses this input."),
        (["x", "--threads", "0"], "--threads"),
        (["x", "--no-such-flag"], "No such option"),
    ],
)
def test_errors(
    invoke: Invoke, bundle: str, generator: FakeGenerator, arguments: list[str], sentence: str
) -> None:
    fails(invoke("run", bundle, *arguments), sentence)


def test_input_and_output_may_not_be_one_file(
    invoke: Invoke, bundle: str, generator: FakeGenerator, tmp_path: Path
) -> None:
    file = tmp_path / "in.txt"
    file.write_text("precious\n")
    fails(invoke("run", bundle, "-f", str(file), "-o", str(file)), "name the same file")
    assert file.read_text() == "precious\n"


def test_a_defect_keeps_its_traceback(
    invoke: Invoke, bundle: str, generator: FakeGenerator
) -> None:
    assert isinstance(invoke("run", bundle, "crash").exception, RuntimeError)


def test_no_such_bundle_names_the_built_in_ones(invoke: Invoke) -> None:
    fails(invoke("run", "nothing", "x"), "no bundle nothing and no built-in checkpoint")
    fails(invoke("run", "nothing", "x"), "g2p")


def test_a_checkpoint_is_not_a_bundle(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    fails(invoke("run", str(tmp_path), "x"), "is a checkpoint, not a bundle: run `edgedec export")


def test_a_file_or_an_empty_folder_is_not_a_bundle(invoke: Invoke, tmp_path: Path) -> None:
    fails(invoke("run", str(tmp_path), "x"), "has no edgedec.json")
    (tmp_path / "model.onnx").touch()
    fails(invoke("run", str(tmp_path / "model.onnx"), "x"), "is a file; a bundle is a folder")


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))),
    size=st.integers(1, 5),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
def test_there_are_as_many_output_lines_as_input_lines(
    invoke: Invoke, bundle: str, generator: FakeGenerator, texts: list[str], size: int
) -> None:
    safe = [text.replace("boom", "").replace("crash", "") for text in texts]
    stdin = "".join(text + "\n" for text in safe).encode()
    result = invoke("run", bundle, "-", "--batch-size", str(size), stdin=stdin)
    assert result.stdout_bytes.count(b"\n") == len(texts)
    records = invoke("run", bundle, "-", "--json", stdin=stdin).stdout_bytes.split(b"\n")[:-1]
    assert [json.loads(record)["index"] for record in records] == list(range(len(texts)))


@pytest.mark.usefixtures("generator")
def test_a_refused_line_is_named(invoke: Invoke, bundle: str, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("one\ntwo\nboom\n", encoding="utf-8")
    result = invoke("run", bundle, "-f", str(file), "--batch-size", "2")
    assert (result.exit_code, result.stdout) == (2, "ONE\nTWO\n")
    assert f"Error: {file}, line 3: The model refuses this input." in result.stderr
    result = invoke("run", bundle, "-f", str(file), "--batch-size", "3")
    assert f"Error: {file}, lines 1 to 3: " in result.stderr


def test_depth_reaches_the_loader(
    invoke: Invoke, bundle: str, generator: FakeGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(*_: Any, depth: str, **__: Any) -> FakeGenerator:
        asked.append(depth)
        return generator

    monkeypatch.setattr(edgedec, "load", load)
    assert invoke("run", bundle, "x").stdout == "X\n"
    assert invoke("run", bundle, "x", "--depth", "ngram:drafts=3").stdout == "X\n"
    assert asked == ["full", "ngram:drafts=3"]


@pytest.mark.parametrize(
    ("arguments", "device", "allowed"),
    [
        ((), None, False),
        (("--device", "encoder=qnn,decoder=cpu"), "encoder=qnn,decoder=cpu", False),
        (("--device", "qnn:sm8650", "--allow-fallback"), "qnn:sm8650", True),
        (("--device", "auto"), "auto", False),
    ],
)
def test_devices_reach_the_loader(
    invoke: Invoke,
    bundle: str,
    generator: FakeGenerator,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    device: str | None,
    allowed: bool,
) -> None:
    loaded: list[dict[str, Any]] = []

    def load(*_: Any, **options: Any) -> FakeGenerator:
        loaded.append(options)
        return generator

    monkeypatch.setattr(edgedec, "load", load)
    assert invoke("run", bundle, "hello", *arguments).exit_code == 0
    (options,) = loaded
    assert (options["device"], options["allow_fallback"]) == (device, allowed)


def test_stats_need_everything_twice(invoke: Invoke, bundle: str, generator: FakeGenerator) -> None:
    fails(invoke("run", bundle, "x", "--stats", "--stream"), "--stats generates everything twice")


def test_stats_in_words(invoke: Invoke) -> None:
    words = "deployment\n\nlalalalalalala\n"
    plain = invoke("run", "g2p", "-", stdin=words)
    result = invoke("run", "g2p", "-", "--depth", "ngram", "--stats", stdin=words)
    assert (result.exit_code, result.stdout) == (0, plain.stdout)
    for part in ("ngram", "per token of 4", "100.00% of tokens", "times as fast", "accepted"):
        assert part in result.stderr


def test_stats_as_json(invoke: Invoke) -> None:
    resolve_bundle("g2p")  # its first use says that it is exported
    result = invoke("run", "g2p", "-", "--depth", "ngram", "--stats", "--json", stdin="model\n\n")
    assert result.stderr == ""
    record, blank, last = map(json.loads, result.stdout.splitlines())
    assert (record["agreement"], blank["agreement"]) == (1.0, None)
    stats = last.pop("stats")
    assert not last
    assert (stats["depth"], stats["agreement"], stats["exact_match"]) == ("ngram", 1.0, 1.0)
    assert stats["tokens"] == len(record["tokens"]) - 1, "the prompt gives the first"
    assert stats["decoder_layers"] == 4
    assert stats["mean_layers"] > 0
    assert stats["ms_per_token"] > 0
    assert stats["speedup"] == pytest.approx(stats["full_ms_per_token"] / stats["ms_per_token"])


def test_stats_of_full_depth_compare_nothing(invoke: Invoke) -> None:
    result = invoke("run", "g2p", "model", "--stats", "--json")
    record, last = map(json.loads, result.stdout.splitlines())
    stats = last["stats"]
    nothing = ("drafted", "accepted", "acceptance", "agreement", "exact_match", "speedup")
    assert record["agreement"] is None
    assert {stats[name] for name in nothing} == {None}
    assert (stats["depth"], stats["mean_layers"]) == ("full", 4.0)
    assert stats["exits"] == {"4": stats["tokens"]}


def test_stats_of_sampling_compare_the_same_random_numbers(invoke: Invoke) -> None:
    arguments = ("--depth", "ngram", "--stats", "--json", "--temperature", "2")
    result = invoke("run", "g2p", "-", *arguments, stdin="deployment\nencyclopedia\n")
    assert json.loads(result.stdout.splitlines()[-1])["stats"]["agreement"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--depth", "deep"], "there is no such policy"),
        (["--depth", "ngram:tall=3"], "there is no parameter 'tall'"),
        (["--depth", "layerskip:exit=1"], "must be cut before layer 1"),
        (["--depth", "auto"], "no depth table"),
        (["--depth", "ngram", "--num-beams", "2"], "ngram"),
    ],
)
def test_depths_that_cannot_be(invoke: Invoke, arguments: list[str], sentence: str) -> None:
    resolve_bundle("g2p")
    fails(invoke("run", "g2p", "model", *arguments), sentence)
    fails(invoke("run", "g2p", "model", *arguments, "--stats"), sentence)
    result = invoke("run", "g2p", "-", *arguments, stdin="model\n")
    fails(result, sentence)
    assert "line 1" not in result.stderr


def test_profile_stands_before_the_text(invoke: Invoke) -> None:
    plain = invoke("run", "g2p", "model")
    for arguments in (["--profile", "model"], ["model", "--profile"]):
        result = invoke("run", "g2p", *arguments)
        assert (result.exit_code, result.stdout) == (0, plain.stdout)
        for part in ("tokenize", "encode", "first step", "steps (", "in all", "decoder", "TPOT"):
            assert part in result.stderr
    assert invoke("run", "g2p", "--", "--profile").stdout == invoke("run", "g2p", "profile").stdout


@pytest.mark.parametrize(
    "arguments",
    [["--stream"], ["--num-beams", "3"], ["--depth", "ngram"], ["--batch-size", "2"], ["-q"]],
)
def test_profile_leaves_the_results_alone(invoke: Invoke, arguments: list[str]) -> None:
    words = "deployment\n\nmodel\n"
    plain = invoke("run", "g2p", "-", *arguments, stdin=words)
    result = invoke("run", "g2p", "-", "--profile", *arguments, stdin=words)
    assert (result.exit_code, result.stdout) == (0, plain.stdout)
    rows = result.stderr.splitlines()
    listed = rows[next(i for i, row in enumerate(rows) if row.startswith("request")) + 1 : -1]
    # The second batch of two has one line that reaches the model.
    assert [int(row.split()[1]) for row in listed] == [1, 1]


def test_profile_as_json(invoke: Invoke) -> None:
    arguments = ("--profile", "--json", "--batch-size", "3")
    result = invoke("run", "g2p", "-", *arguments, stdin="deployment\n\nmodel\nword\n")
    assert (result.exit_code, result.stderr) == (0, "")
    *records, last = map(json.loads, result.stdout.splitlines())
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    (key,) = last
    first, second = last[key]["requests"]
    assert (key, first["inputs"], second["inputs"]) == ("profile", 2, 1)
    assert first["new_tokens"] == len(records[0]["tokens"]) + len(records[2]["tokens"])
    assert second["source_tokens"] == len("word") + 1
    for request in (first, second):
        n = len(request["token_ms"])
        assert n == request["steps"] + 1
        assert request["ttft_ms"] == request["token_ms"][0]
        whole = request["ttft_ms"] + (n - 1) * request["tpot_ms"]
        assert whole == pytest.approx(request["e2e_ms"], rel=0.01)
        assert request["energy_j"] is None, "not measured"


def test_profile_as_a_trace(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "my_trace.json"
    result = invoke("run", "g2p", f"--profile={path}", "-", stdin="model\nword\n")
    assert result.exit_code == 0
    assert "in all" in result.stderr
    events = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    requests = [e for e in events if e["cat"] == "request"]
    assert len(requests) == 2
    assert events[0] == requests[0]
    assert requests[0]["ts"] == 0
    assert all(any(_holds(r, e) for r in requests) for e in events if e["cat"] == "phase")


def _holds(outer: dict[str, Any], inner: dict[str, Any]) -> bool:
    end = outer["ts"] + outer["dur"]
    return bool(outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= end + 1e-3)


def test_profile_of_nothing(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    result = invoke("run", "g2p", f"--profile={path}", "-", stdin="\n\n")
    assert (result.exit_code, result.stdout) == (0, "\n\n")
    assert "Nothing was generated" in result.stderr
    assert not any(event["ph"] == "X" for event in json.loads(path.read_text())["traceEvents"])
    result = invoke("run", "g2p", "--profile", "--json", "-", stdin="\n")
    assert json.loads(result.stdout.splitlines()[-1]) == {"profile": {"requests": []}}


def test_profile_lists_some_requests_only(invoke: Invoke) -> None:
    result = invoke("run", "g2p", "--profile", "-", "--max-new-tokens", "1", stdin="a\n" * 23)
    assert "and 3 more" in result.stderr
    assert "steps (0)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile=notes.txt"], "name a file that ends with .json"),
        (["--profile=nowhere/t.json"], "Cannot write nowhere/t.json"),
        (["--profile=t.json", "-o", "./t.json"], "names a file that is used otherwise"),
        (["--profile", "--stats"], "it cannot go with --profile"),
    ],
)
def test_profiles_that_cannot_be(
    invoke: Invoke,
    bundle: str,
    generator: FakeGenerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(invoke("run", bundle, "x", *arguments), sentence)
    assert not generator.calls
    assert not (tmp_path / "t.json").exists()
