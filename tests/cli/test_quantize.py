"""`edgedec quantize`: arguments in, a report out; quantizing itself has tests of its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from tests.quantize.reports import comparison, report

from edgedec import builtin
from edgedec.errors import InputError
from edgedec.export import compare as comparing
from edgedec.export import quantized
from edgedec.quantize.method import Settings
from edgedec.quantize.options import QuantizeOptions
from edgedec.quantize.reporting.report import Comparison, QuantizationReport, from_json, to_json

Invoke = Callable[..., Result]
Calls = list[tuple[Any, ...]]
Progress = Callable[[str, float], None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace what quantizes; list what it was called with."""
    seen: Calls = []

    def quantize(
        source: str, out: str, options: QuantizeOptions, progress: Progress
    ) -> QuantizationReport:
        if source == "broken":
            raise InputError("broken is damaged.")
        if source == "interrupted":
            raise KeyboardInterrupt
        if source == "half":
            finished = Path(out).parent / f".{Path(out).name}.quantizing" / "finished"
            finished.mkdir(parents=True)
            (finished / "a.quantized").touch()
            raise KeyboardInterrupt
        progress("calibrating", 0.5)
        seen.append((source, out, options))
        Path(out).mkdir()
        (Path(out) / "weights.bin").write_bytes(bytes(1500))
        return report()

    def compare_methods(
        source: str, options: QuantizeOptions, methods: tuple[str, ...], progress: Progress
    ) -> Comparison:
        progress("calibrating", 0.5)
        seen.append((source, options, methods))
        return comparison(methods)

    monkeypatch.setattr(quantized, "quantize_source", quantize)
    monkeypatch.setattr(comparing, "compare_methods", compare_methods)
    return seen


def option(name: str) -> click.Option:
    from edgedec.cli.quantize import command

    (found,) = [option for option in command.params if option.name == name]
    assert isinstance(found, click.Option)
    return found


def choices(name: str) -> list[str]:
    kind = option(name).type
    assert isinstance(kind, click.Choice)
    return list(kind.choices)


def described(name: str) -> str:
    return option(name).help or ""


def test_choices_are_those_of_the_quantizer() -> None:
    """The command line lists them without importing it."""
    from typing import get_args

    from edgedec.cli.quantize import COMPARED, STORED
    from edgedec.kernels.codebook_matmul import COMPUTES
    from edgedec.quantize.codebook import BITS
    from edgedec.quantize.method import Grouping
    from edgedec.quantize.methods import METHODS
    from edgedec.quantize.options import END_BITS, LEARNED, MIXED, ROUNDED, TOKENS

    assert {name for name, method in METHODS.items() if method.stored} == set(STORED)
    assert {name for name, method in METHODS.items() if not method.stored} == set(COMPARED)
    assert choices("methods") == [*STORED, *COMPARED]
    assert sorted(choices("bits")) == sorted([*map(str, BITS), MIXED])
    assert choices("embedding_bits") == list(map(str, END_BITS))
    assert choices("grouping") == list(get_args(Grouping))
    assert choices("compute") == list(COMPUTES)
    assert f"[default: {TOKENS}]" in described("tokens")
    assert f"[default: {LEARNED}, for 8 bits {ROUNDED}; " in described("methods")


def test_defaults_are_those_of_the_options(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    assert invoke("quantize", "some/model", "-o", out).exit_code == 0
    assert calls == [("some/model", out, QuantizeOptions())]


def test_every_option_arrives(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    result = invoke(
        "quantize", "-m", "some/model", "-o", out, "--method", "gptq", "--bits", "mixed",
        "--budget", "3.2", "--embedding-bits", "8", "--calib", "c.tsv", "--tokens", "2048",
        "--eval", "e.tsv", "--groups", "2", "--grouping", "auto", "--joint", "--no-sequential",
        "--seed", "7", "--threads", "2", "--compute", "bf16", "--portable", "--revision", "v2",
        "--tokenizer", "tok", "--stages", "0,2", "--via", "optimum", "--no-verify", "--force",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert calls[0][2] == QuantizeOptions(
        method="gptq",
        bits="mixed",
        budget=3.2,
        embedding_bits=8,
        calibration=Path("c.tsv"),
        tokens=2048,
        evaluation=Path("e.tsv"),
        sequential=False,
        settings=Settings(groups=2, grouping="auto", joint=True, seed=7),
        threads=2,
        compute="bf16",
        portable=True,
        revision="v2",
        tokenizer="tok",
        via="optimum",
        stages="0,2",
        verify=False,
        force=True,
    )


def test_a_built_in_name(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    invoke("quantize", "g2p", "-o", str(tmp_path / "b"))
    invoke("quantize", "g2p", "--compare")
    assert [call[0] for call in calls] == 2 * [str(builtin.CHECKPOINTS / "g2p")]


def test_tables(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    result = invoke("quantize", "some/model", "-o", out)
    assert result.stderr == ""
    first, summary, texts, task, kinds = result.stdout.split("\n\n")
    assert first == f"{out}  1.5 kB"
    totals = report().totals()
    assert f"bits per weight  {totals.bits_per_weight:.3f} with levels" in summary
    assert "test.tsv    2,345" in texts
    assert "WER (lower is better)" in task
    assert kinds.splitlines()[1].split()[:3] == ["encoder.*.self_attn.q", "3", "64"]
    assert "decoder.1.mlp.up.weight" not in kinds
    every = invoke("quantize", "some/model", "-o", str(tmp_path / "c"), "--matrices").stdout
    for matrix in report().matrices:
        assert f"\n{matrix.name} " in every


def test_json(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    value = json.loads(invoke("quantize", "some/model", "-o", out, "--json").stdout)
    assert (value["bundle"], value["bytes"]) == (out, 1500)
    assert to_json(from_json(json.dumps(value["report"]))) == to_json(report())


def test_compare_runs_all_methods_that_can(invoke: Invoke, calls: Calls) -> None:
    result = invoke("quantize", "some/model", "--compare", "--bits", "3")
    source, options, methods = calls[0]
    assert (source, options) == ("some/model", QuantizeOptions(bits=3))
    assert {"jlcm", "rtn", "rtn-block32", "gptq"} <= set(methods)
    assert not {"nf4", "nf4-block64"} & set(methods)
    title, table = result.stdout.split("\n\n")
    assert title == "google/flan-t5-small: methods at 3 bits"
    assert [line.split()[0] for line in table.splitlines()] == ["method", "float32", *methods]


def test_compare_runs_the_methods_given(invoke: Invoke, calls: Calls) -> None:
    flags = ("--method", "rtn-block32", "--method", "jlcm", "--json")
    value = json.loads(invoke("quantize", "some/model", "--compare", *flags).stdout)
    assert calls[0][2] == ("rtn-block32", "jlcm")
    assert [row["method"] for row in value["rows"]] == ["float32", "rtn-block32", "jlcm"]


def test_compare_at_eight_bits(invoke: Invoke, calls: Calls) -> None:
    assert invoke("quantize", "some/model", "--compare", "--bits", "8").exit_code == 0
    assert calls[0][2] == ("rtn",)


def test_a_page(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for arguments in (["-o", str(tmp_path / "b")], ["--compare"]):
        result = invoke("quantize", "some/model", *arguments, "--html", str(page))
        assert result.exit_code == 0, result.output
        assert "google/flan-t5-small" in page.read_text("utf-8")
        page.unlink()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "out"], "Name one source"),
        (["a", "-m", "b", "-o", "out"], "Name one source"),
        (["a"], "Name the bundle to write with -o DIR"),
        (["a", "-o", "out", "--compare"], "--compare writes no bundle"),
        (["a", "--compare", "--bits", "3", "--method", "nf4"], "nf4 has codes of 4 bits, not 3"),
        (["a", "--compare", "--bits", "8", "--method", "gptq"], "codes of 2, 3, 4 bits, not 8"),
        (["a", "--compare", "--bits", "mixed"], "compare methods at 2, 3, 4 or 8 bits."),
        (["a", "--compare", "--bits", "mixed", "--method", "jlcm"], "compare methods at 2, 3, 4"),
        (["a", "-o", "out", "--method", "jlcm", "--method", "rtn"], "jlcm and rtn"),
        (["a", "-o", "out", "--bits", "8", "--method", "gptq"], "--bits 8 is only rounded"),
        (["a", "-o", "out", "--seed", "-1"], "'--seed': -1 is not in the range x>=0"),
        (["a", "-o", "out", "--bits", "5"], "'5' is not one of"),
        (["a", "-o", "out", "--bits", "mixed"], "--bits mixed needs --budget"),
        (["a", "-o", "out", "--budget", "3"], "--budget is for --bits mixed"),
        (["a", "-o", "out", "--tokens", "0"], "--tokens 0"),
        (["a", "-o", "out", "--html", "nowhere/page.html"], "there is no folder nowhere"),
        (["a", "-o", "out", "--html", "."], "is a folder"),
        (["broken", "-o", "out"], "broken is damaged."),
    ],
)
def test_errors(
    invoke: Invoke,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("quantize", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence in line
    assert calls == []


def test_a_missing_package_shows_before_the_work(
    invoke: Invoke, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    html = str(tmp_path / "page.html")
    result = invoke("quantize", "some/model", "-o", str(tmp_path / "b"), "--html", html)
    assert result.exit_code == 3
    assert "pip install 'edgedec[report]'" in result.stderr
    assert calls == []


def test_an_interruption_says_how_to_go_on(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    result = invoke("quantize", "interrupted", "-o", out)
    assert result.stderr.strip() == "Aborted!"  # nothing is finished yet
    assert "goes on with the matrices" in invoke("quantize", "half", "-o", out).stderr
    out = str(tmp_path / "c")
    assert invoke("quantize", "half", "-o", out, "-q").stderr.strip() == "Aborted!"


LOST = """
import pathlib, sys
from tests.quantize.reports import comparison, report
from edgedec.export import compare, quantized
def quantize(source, out, *_):
    pathlib.Path(out).mkdir()
    return report()
quantized.quantize_source = quantize
compare.compare_methods = lambda *_: comparison()
from edgedec.cli import main
main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-o", "b"], "the report cannot be printed: No space left on device; b is complete."),
        (
            ["-o", "b", "--json"],
            "the report cannot be printed: No space left on device; b is complete.",
        ),
        (["--compare", "--json"], "the report cannot be printed: No space left on device."),
    ],
)
def test_a_report_that_cannot_be_printed(tmp_path: Path, flags: list[str], said: str) -> None:
    command = [sys.executable, "-c", LOST, "quantize", "some/model", *flags]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, f"Error: {said}\n")


def test_a_page_that_cannot_be_written(
    invoke: Invoke, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is printed all the same."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.chdir(tmp_path)
    result = invoke("quantize", "some/model", "-o", "b", "--html", "page.html")
    assert result.exit_code == 2
    assert result.stdout.startswith("b  1.5 kB\n")
    assert result.stderr.splitlines()[-1] == (
        "Error: --html page.html cannot be written: No space left on device; b is complete."
    )


SLOW = """
import pathlib, sys, time
from edgedec.export import quantized
def quantize(source, out, *_):
    out = pathlib.Path(out)
    finished = out.parent / f".{out.name}.quantizing" / "finished"
    finished.mkdir(parents=True)
    (finished / "a.quantized").touch()
    print("started", file=sys.stderr, flush=True)
    time.sleep(60)
quantized.quantize_source = quantize
from edgedec.cli import main
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "goes on"), (signal.SIGTERM, 143, "")]
)
def test_signals(tmp_path: Path, number: int, code: int, said: str) -> None:
    command = [sys.executable, "-c", SLOW, "quantize", "some/model", "-o", str(tmp_path / "b")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"started\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, b"")
    assert said in err.decode()
    assert "Traceback" not in err.decode()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgedec.cli.quantize as q; "
        "print([m for m in ('numpy', 'onnx', 'matplotlib', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
