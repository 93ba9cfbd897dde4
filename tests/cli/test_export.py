"""`edgedec export`: arguments in, one line out; the exporter itself has tests of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

import edgedec.export
from edgedec import builtin
from edgedec.cli.terminal.stopping import stopped_by_sigterm
from edgedec.errors import CheckpointError
from edgedec.quantize.options import QuantizeOptions

Invoke = Callable[..., Result]
Calls = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace the exporter; list what it was called with."""
    seen: Calls = []

    def export(checkpoint: str | Path, out: str, **options: Any) -> Path:
        if str(checkpoint) == "broken":
            raise CheckpointError("broken is damaged.")
        options.pop("progress")("writing", 0.5)
        seen.append((str(checkpoint), out, options))
        Path(out).mkdir()
        (Path(out) / "weights.bin").write_bytes(bytes(1500))
        return Path(out)

    monkeypatch.setattr(edgedec.export, "export_checkpoint", export)
    return seen


def test_formats_are_those_of_the_quantizer() -> None:
    """The command line lists them without importing it."""
    from edgedec.cli.export import command
    from edgedec.devices.npu.precision import PRECISIONS
    from edgedec.kernels.codebook_matmul import COMPUTES
    from edgedec.quantize.methods import METHODS
    from edgedec.quantize.scheme import SCHEMES

    choices = {
        option.name: list(option.type.choices)
        for option in command.params
        if isinstance(option.type, click.Choice)
    }
    assert choices["quant"] == ["none", *SCHEMES, *PRECISIONS]
    assert choices["compute"] == list(COMPUTES)
    stored = [method.name for method in METHODS.values() if method.stored]
    assert sorted(choices["method"]) == sorted(stored)


DEFAULTS = {
    "quant": None,
    "compute": None,
    "method": None,
    "calibration": None,
    "portable": False,
    "stages": None,
    "depth": (),
    "base": None,
    "lora": "merge",
    "dtype": "fp32",
    "revision": None,
    "tokenizer": None,
    "via": None,
    "verify": True,
    "force": False,
    "device": "cpu",
    "kv": None,
    "max_source": None,
    "max_target": None,
    "chunk": None,
    "unroll": None,
    "soc": None,
    "share_contexts": False,
    "min_agreement": None,
    "budget": None,
    "max_rows": None,
    "engines": None,
}


def test_path_and_size(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    result = invoke("export", "some/model", "-o", out)
    assert (result.exit_code, result.stdout) == (0, f"{out}  1.5 kB\n")
    assert calls == [("some/model", out, DEFAULTS)]


def test_json_and_the_other_options(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    result = invoke(
        "export", "-m", "some/model", "-o", out, "--json", "--stages", "0,1,4", "--dtype", "bf16",
        "--revision", "v2", "--tokenizer", "tok", "--via", "optimum", "--no-verify", "--force",
        "--quant", "cb3", "--compute", "int8-block", "--portable",
        "--method", "gptq", "--calib", "text.txt", "--base", "other", "--lora", "keep",
        "--depth", "layerskip:exit=2,drafts=4", "--depth", "ngram",
    )  # fmt: skip
    assert json.loads(result.stdout) == {"bundle": out, "bytes": 1500}
    assert calls[0][2] == DEFAULTS | {
        "quant": "cb3",
        "compute": "int8-block",
        "method": "gptq",
        "calibration": "text.txt",
        "portable": True,
        "stages": "0,1,4",
        "depth": ("layerskip:exit=2,drafts=4", "ngram"),
        "base": "other",
        "lora": "keep",
        "dtype": "bf16",
        "revision": "v2",
        "tokenizer": "tok",
        "via": "optimum",
        "verify": False,
        "force": True,
    }


def test_what_a_gpu_is_asked_for(invoke: Invoke, calls: Calls, tmp_path: Path) -> None:
    result = invoke(
        "export", "some/model", "-o", str(tmp_path / "b"), "--device", "tensorrt", "--json",
        "--max-rows", "4", "--max-source", "64", "--max-target", "96", "--min-agreement", "0.9",
        "--engines", "e", "--quant", "none",
    )  # fmt: skip
    assert json.loads(result.stdout).keys() == {"bundle", "bytes"}
    assert calls[0][2] == DEFAULTS | {
        "device": "tensorrt",
        "max_rows": 4,
        "max_source": 64,
        "max_target": 96,
        "min_agreement": 0.9,
        "engines": "e",
    }
    invoke("export", "some/model", "-o", str(tmp_path / "c"), "--device", "qnn", "--quant", "none")
    assert calls[1][2]["quant"] == "none"  # which no NPU has


@pytest.mark.parametrize("became", [SystemExit(0), ImportError("half an extension"), None])
def test_termination_ends_it_whatever_becomes_of_it(became: BaseException | None) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with stopped_by_sigterm():
            try:
                signal.raise_signal(signal.SIGTERM)
            except SystemExit as stop:
                if became is not None:
                    raise became from stop

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_termination_errors_are_what_they_are() -> None:
    with pytest.raises(ImportError), stopped_by_sigterm():
        raise ImportError
    with stopped_by_sigterm():
        pass


def test_json_of_an_npu_that_was_not_verified(invoke: Invoke, tmp_path: Path) -> None:
    from tests.export.tiny import write

    checkpoint, out = write(tmp_path / "c", "t5"), tmp_path / "b"
    lengths = ["--max-source", "8", "--max-target", "8", "--no-verify"]
    result = invoke(
        "export", str(checkpoint), "-o", str(out), "--json", "--device", "qnn", *lengths
    )
    assert json.loads(result.stdout).keys() == {"bundle", "bytes", "agreement"}
    assert json.loads(result.stdout)["agreement"] is None


def test_a_built_in_name(
    invoke: Invoke, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("export", "g2p", "-o", "b", "--stages", "all")
    assert calls[0][0] == str(builtin.CHECKPOINTS / "g2p")
    assert calls[0][2]["stages"] == "all"
    (tmp_path / "g2p").mkdir()  # a folder of one's own wins
    invoke("export", "g2p", "-o", "c")
    assert calls[1][0] == "g2p"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "out"], "Name one checkpoint"),
        (["a", "-m", "b", "-o", "out"], "Name one checkpoint"),
        (["a"], "Missing option '-o'"),
        (["a", "-o", "out", "--dtype", "int8"], "'int8' is not one of"),
        (["a", "-o", "out", "--quant", "cb5"], "'cb5' is not one of"),
        (["a", "-o", "out", "--compute", "int4"], "'int4' is not one of"),
        (["a", "-o", "out", "--lora", "drop"], "'drop' is not one of"),
        (["broken", "-o", "out"], "broken is damaged."),
    ],
)
def test_errors(invoke: Invoke, calls: Calls, arguments: list[str], sentence: str) -> None:
    result = invoke("export", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence in line


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> list[QuantizeOptions]:
    """Replace what quantizes; list the options that it was called with."""
    seen: list[QuantizeOptions] = []

    def quantize(
        _: str, out: str, options: QuantizeOptions, *__: Any, report: bool, finish: object
    ) -> None:
        assert not report
        assert finish is None
        seen.append(options)
        Path(out).mkdir()

    monkeypatch.setattr("edgedec.export.quantized.quantize_source", quantize)
    return seen


def test_the_method_of_a_format(
    invoke: Invoke, quantized: list[QuantizeOptions], tmp_path: Path
) -> None:
    given = [("cb4",), ("int8",), ("int8", "--method", "rtn"), ("cb3", "--method", "kmeans")]
    for i, flags in enumerate(given):
        result = invoke("export", "a", "-o", str(tmp_path / str(i)), "--quant", *flags)
        assert result.exit_code == 0, result.output
    found = [(options.bits, options.method) for options in quantized]
    assert found == [(4, "jlcm"), (8, "rtn"), (8, "rtn"), (3, "kmeans")]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["int8", "--method", "gptq"],
            "--quant int8 is only rounded: leave out --method, or use rtn.",
        ),
        (
            ["cb3", "--method", "kmeans", "--calib", "c.txt"],
            "--calib c.txt: codes by kmeans need no text; leave it out.",
        ),
        (["int8", "--calib", "c.txt"], "--calib c.txt: codes by rtn need no text; leave it out."),
    ],
)
def test_what_would_be_ignored_is_refused(
    invoke: Invoke,
    quantized: list[QuantizeOptions],
    tmp_path: Path,
    flags: list[str],
    sentence: str,
) -> None:
    result = invoke("export", "a", "-o", str(tmp_path / "b"), "--quant", *flags)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"Error: {sentence}"
    assert quantized == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--depth", "lora-drop"], "the checkpoint has no adapters"),
        (["--depth", "skipdecode:min=2,max=9"], "the decoder has 5 layers"),
        (["--depth", "deeper"], "there is no such policy"),
        (["--depth", "ngram", "--depth", "ngram"], "given twice"),
        (["--depth", "first", "--via", "optimum"], "traced cannot be cut"),
        (["--base", "elsewhere"], "--base is for adapters in PEFT's format"),
        (["--quant", "int8", "--depth", "first"], "the checkpoint has no routers"),
        (["--quant", "int8", "--lora", "keep"], "--lora keep is for floating-point weights"),
    ],
)
def test_depth_that_cannot_be(
    invoke: Invoke, tmp_path: Path, flags: list[str], sentence: str
) -> None:
    from tests.export.tiny import write

    checkpoint = write(tmp_path / "c", "llama")
    result = invoke("export", str(checkpoint), "-o", str(tmp_path / "b"), *flags)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert sentence in result.stderr.splitlines()[-1]
    assert not (tmp_path / "b").exists()


def test_depth_cuts_the_decoder(invoke: Invoke, tmp_path: Path) -> None:
    from tests.export.tiny import write

    checkpoint, out = write(tmp_path / "c", "llama"), str(tmp_path / "b")
    result = invoke("export", str(checkpoint), "-o", out, "--depth", "layerskip:exit=2")
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "b" / "edgedec.json").read_text())
    assert [(s["first"], s["last"]) for s in manifest["stages"]] == [(0, 2), (2, 5)]
    assert manifest["policies"]["layerskip"] == {"exit": 2, "drafts": 4}
    refused = invoke("quantize", out, "-o", str(tmp_path / "r"), "--depth", "ngram")
    assert refused.exit_code == 2
    assert "--depth says how to export a checkpoint" in refused.stderr
