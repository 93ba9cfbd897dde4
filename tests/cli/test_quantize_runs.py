"""`edgedec quantize` from end to end, on a model of a few kilobytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from tests.bundle.conftest import write_checkpoint

import edgedec
from edgedec.export.depth_table import write_table
from edgedec.quantize.reporting.report import from_json, to_json
from edgedec.quantize.store import Store
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.manifest import DepthPoint, DepthTable

Invoke = Callable[..., Result]
FEW = ("--tokens", "96", "--threads", "1", "--no-verify")


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return str(write_checkpoint(tmp_path / "tiny"))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{word}\t{word[::-1]}\n" for word in ("abc", "stressed", "on", "xyz")))
    return str(path)


def content(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_the_bundle_holds_what_the_output_says(
    invoke: Invoke, checkpoint: str, pairs: str, tmp_path: Path
) -> None:
    before = content(Path(checkpoint))
    out, page = tmp_path / "out", tmp_path / "page.html"
    arguments = ("--calib", pairs, "--eval", pairs, "--html", str(page), "--json")
    result = invoke("quantize", checkpoint, "-o", str(out), "--bits", "2", *FEW, *arguments)
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    report = from_json(json.dumps(value["report"]))
    stored = (out / "quantization.json").read_text("utf-8")
    assert stored == to_json(report.without_times())
    assert report.seconds
    assert [agreement.text.name for agreement in report.agreements] == ["pairs.tsv"] * 2
    assert report.task is not None
    assert report.task.samples == 4
    assert {m.bits for m in report.matrices if m.role == "linear"} == {2}
    assert f"{report.totals().bits_per_weight:.3f}" in page.read_text("utf-8")
    assert value["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    assert invoke("inspect", str(out), "--check").exit_code == 0
    assert invoke("run", str(out), "abc").exit_code == 0
    assert content(Path(checkpoint)) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_depth_table_is_left_out(
    invoke: Invoke, checkpoint: str, pairs: str, tmp_path: Path
) -> None:
    """It was measured with other weights."""
    bundle = edgedec.export(checkpoint, tmp_path / "float", verify=False)
    table = DepthTable("a.txt", 1, "agreement", "some", 1, (DepthPoint("full", 1, 2, 1, 1),))
    arguments = ("quantize", str(bundle), "--bits", "8", "--calib", pairs, *FEW)
    result = invoke(*arguments, "-o", str(tmp_path / "without"))
    assert result.exit_code == 0, result.output
    assert "depth table" not in result.stderr
    write_table(bundle, table)
    result = invoke(*arguments, "-o", str(tmp_path / "with"))
    assert result.exit_code == 0, result.output
    assert "the depth table was left out: run edgedec calibrate-depth again." in result.stderr
    assert open_bundle(tmp_path / "with").manifest.depth is None


def test_an_interrupted_run_goes_on(
    invoke: Invoke, checkpoint: str, pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save = Store.save

    def counted(store: Store, name: str, quantized: Any) -> None:
        saved.append(name)
        save(store, name, quantized)

    def interrupted(store: Store, name: str, quantized: Any) -> None:
        if len(saved) == 5:
            raise KeyboardInterrupt
        counted(store, name, quantized)

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert invoke("quantize", checkpoint, "-o", str(whole), *FEW, "--calib", pairs).exit_code == 0
    command = ("quantize", checkpoint, "-o", str(out), *FEW, "--calib", pairs)
    monkeypatch.setattr(Store, "save", interrupted)
    assert "goes on with the matrices" in invoke(*command).stderr
    assert not out.exists()
    monkeypatch.setattr(Store, "save", counted)
    assert invoke(*command).exit_code == 0
    assert len(saved) == len(set(saved))  # nothing was quantized twice
    assert content(out) == content(whole)
    assert not list(tmp_path.glob(".out*"))


def test_other_settings_do_not_go_on(
    invoke: Invoke, checkpoint: str, pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one method has finished is not taken for another's."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    whole, out = tmp_path / "whole", tmp_path / "out"
    command = ("quantize", checkpoint, *FEW, "--calib", pairs, "--method")
    invoke(*command, "kmeans", "-o", str(whole))
    with monkeypatch.context() as patch:
        patch.setattr("edgedec.export.quantized.lower", interrupted)
        invoke(*command, "rtn", "-o", str(out))
    assert list(tmp_path.glob(".out*"))
    invoke(*command, "kmeans", "-o", str(out))
    assert content(out) == content(whole)


def test_a_comparison(invoke: Invoke, checkpoint: str, pairs: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("--bits", "2", "--calib", pairs, "--html", str(page), "--json")
    result = invoke("quantize", checkpoint, "--compare", *FEW, *arguments)
    assert result.exit_code == 0, result.output
    plain, *rows = json.loads(result.stdout)["rows"]
    assert (plain["method"], plain["agreement"]["kl"], plain["output_error"]) == ("float32", 0, 0)
    assert {"jlcm", "rtn", "gptq", "kmeans-rows"} <= {row["method"] for row in rows}
    for row in rows:
        assert row["agreement"]["kl"] > 0
        assert 2 < row["bits_per_weight"] < 32
    assert "kmeans-rows" in page.read_text("utf-8")
    assert not (tmp_path / "out").exists()


def test_mixed_bits_keep_to_the_budget(
    invoke: Invoke, checkpoint: str, pairs: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    mixed = ("--bits", "mixed", "--budget", "9", "--json")
    result = invoke("quantize", checkpoint, "-o", out, *FEW, "--calib", pairs, *mixed)
    assert result.exit_code == 0, result.output
    report = from_json(json.dumps(json.loads(result.stdout)["report"]))
    assert report.totals().bits_per_weight <= 9
    assert len({matrix.bits for matrix in report.matrices}) > 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A bare ONNX model with one product."""
    rng = np.random.default_rng(0)
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", tensor, ["B", 16])],
        [helper.make_tensor_value_info("y", tensor, ["B", 24])],
        [onnx.numpy_helper.from_array(rng.standard_normal((16, 24), np.float32), "w")],
    )
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    np.savez(path.parent / "some.npz", x=rng.standard_normal((50, 16), np.float32))
    return path


def test_a_bare_model(invoke: Invoke, model: Path, tmp_path: Path) -> None:
    out, page, calib = tmp_path / "out.onnx", tmp_path / "page.html", model.parent / "some.npz"
    arguments = ["quantize", str(model), "-o", str(out), "--calib", str(calib), "--threads", "1"]
    result = invoke(*arguments, "--html", str(page))
    assert result.exit_code == 0, result.output
    assert "some.npz, 50 inputs" in result.stdout
    assert "KL" not in result.stdout
    result = invoke(*arguments, "--json", "--force")
    value = json.loads(result.stdout)
    assert (value["model"], value["bytes"]) == (str(out), out.stat().st_size)
    report = from_json(json.dumps(value["report"]))
    assert [output.name for output in report.outputs] == ["y"]
    assert f"{report.outputs[0].error:.4g}" in page.read_text("utf-8")


def test_a_bare_model_has_nothing_to_compare(invoke: Invoke, model: Path) -> None:
    result = invoke("quantize", str(model), "--compare")
    assert result.exit_code == 2
    assert "--compare is for checkpoints" in result.output


def test_a_bare_model_without_text(invoke: Invoke, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("--method", "rtn", "--html", str(page))
    result = invoke("quantize", str(model), "-o", str(tmp_path / "out.onnx"), *arguments)
    assert result.exit_code == 0, result.output
    assert "calibrated" not in result.stdout + page.read_text("utf-8")
