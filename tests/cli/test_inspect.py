"""`edgedec inspect` on a bundle made by hand: no exporter, no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from onnx import TensorProto, helper

from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    CodebookMatrix,
    CodebookPart,
    Codebooks,
    Component,
    FileEntry,
    Interface,
    Manifest,
    Rounding,
    Source,
    Stage,
    Verified,
    dump_manifest,
)

Invoke = Callable[..., Result]


def graph() -> bytes:
    """An ONNX file that the checks of a bundle accept."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(
        helper.make_graph([node], "g", [value], [result]),
        opset_imports=[helper.make_opsetid("", 24)],
    )
    return bytes(model.SerializeToString())


def write_bundle(folder: Path, verified: Verified | None) -> Manifest:
    """Write a small bundle of an encoder-decoder with two stages and a head."""
    contents = {name: graph() for name in ("encoder", "decoder.0-2", "decoder.2-3", "head")}
    files = {f"{name}.onnx": data for name, data in contents.items()}
    files["weights.bin"] = bytes(2_500_000)
    manifest = Manifest(
        schema_version=1,
        producer="edgedec 0.1.0",
        source=Source("someone/model", "abc123", "f" * 64),
        model={"family": "t5"},
        interface=Interface("encoder-decoder", 73, 256, 3, 128, None, 512),
        components={name: Component(f"{name}.onnx", "cpu", "fp32") for name in contents},
        encoder="encoder",
        stages=(Stage("decoder.0-2", 0, 2), Stage("decoder.2-3", 2, 3)),
        head="head",
        generation=GenerationConfig(max_new_tokens=64, eos_token_ids=(1,)),
        parameters=1_250_000,
        verified=verified,
        files={
            name: FileEntry(len(data), hashlib.sha256(data).hexdigest())
            for name, data in files.items()
        },
    )
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "edgedec.json").write_text(dump_manifest(manifest), encoding="utf-8")
    return manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "b", Verified(2e-5, 30.0, 24))
    return tmp_path / "b"


def test_everything_that_matters_is_shown(invoke: Invoke, folder: Path) -> None:
    result = invoke("inspect", str(folder))
    assert result.exit_code == 0, result.output
    for part in (
        "someone/model at abc123, sha256 ffffffffffff",
        "t5, encoder-decoder",
        "1,250,000 in 2.5 MB",
        "source any, target 512 tokens",
        "logits differ by at most 2.0e-05 in a range of 30 from the reference, over 24 tokens",
        "decoder.0-2  0-1     cpu     fp32       decoder.0-2.onnx",
        "decoder.2-3  2-2",
        "max_new_tokens  64",
        "eos_token_ids   1",
    ):
        assert part in result.stdout
    assert "num_beams" not in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def codebooks(rounding: Rounding | None) -> Codebooks:
    def matrix(bits: int, *rows: int) -> CodebookMatrix:
        parts = tuple(CodebookPart(f"part.{i}.weight", n) for i, n in enumerate(rows))
        return CodebookMatrix(sum(rows), 256, bits, 3, parts)

    return Codebooks(
        scheme="cb3",
        compute="int8-block",
        portable=False,
        rounding=rounding,
        matrices={
            "encoder": {"encoder.embed": matrix(4, 73), "encoder.0.mlp.up": matrix(3, 1024)},
            "decoder.0-2": {"decoder.0.self_attn.qkv": matrix(3, 64, 64, 64)},
        },
    )


def test_codebook_weights(invoke: Invoke, tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "b", Verified(2e-5, 30.0, 24))
    with_codes = replace(manifest, codebooks=codebooks(Rounding(0.001, 0.25)))
    (tmp_path / "b" / "edgedec.json").write_text(dump_manifest(with_codes), encoding="utf-8")
    result = invoke("inspect", str(tmp_path / "b"))
    assert result.exit_code == 0, result.output
    for line in (
        "codebooks  cb3",
        "matrices   2 of 3 bits, 1 of 4 bits",
        "products   inputs in int8 with a scale per 128 inputs",
        "portable   no",
        "rounding   moves logits by 2.5e-01; 1.0e-03 from a reference that does so",
    ):
        assert f"{line}\n" in result.stdout
    without = replace(manifest, codebooks=codebooks(None))
    (tmp_path / "b" / "edgedec.json").write_text(dump_manifest(without), encoding="utf-8")
    assert "rounding" not in invoke("inspect", str(tmp_path / "b")).stdout


def rename(block: Any) -> None:
    block["matrices"]["head.0"] = block["matrices"].pop("encoder")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda block: block.update(surprise=1), "codebooks.surprise is not a known key"),
        (lambda block: block.update(compute="int4"), "codebooks.compute"),
        (lambda block: block["matrices"]["encoder"]["encoder.embed"].update(bits=5), "matrix"),
        (lambda block: block["matrices"]["encoder"]["encoder.embed"].update(rows=72), "matrix"),
        (lambda block: block["matrices"]["encoder"]["encoder.embed"].update(rows=0), "matrix"),
        (rename, "a component that is not listed"),
    ],
)
def test_codebooks_that_cannot_be(
    invoke: Invoke, tmp_path: Path, change: Callable[[Any], object], sentence: str
) -> None:
    manifest = write_bundle(tmp_path / "b", None)
    value = json.loads(dump_manifest(replace(manifest, codebooks=codebooks(None))))
    change(value["codebooks"])
    (tmp_path / "b" / "edgedec.json").write_text(json.dumps(value), encoding="utf-8")
    result = invoke("inspect", str(tmp_path / "b"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_a_model_without_a_family(invoke: Invoke, folder: Path) -> None:
    manifest = json.loads((folder / "edgedec.json").read_text(encoding="utf-8"))
    manifest["model"] = {"route": "optimum", "model_type": "pegasus"}
    (folder / "edgedec.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "pegasus through optimum, encoder-decoder" in invoke("inspect", str(folder)).stdout


def test_not_verified_is_said(invoke: Invoke, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", None)
    assert "no (exported with --no-verify)" in invoke("inspect", str(tmp_path / "b")).stdout


def test_json_is_the_manifest(invoke: Invoke, folder: Path) -> None:
    result = invoke("inspect", str(folder), "--json")
    assert result.stdout == (folder / "edgedec.json").read_text(encoding="utf-8")
    assert json.loads(result.stdout)["schema_version"] == 1


def test_check_reads_the_weights(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedec.runtime.bundle.HASHED_AT_OPEN", 0)  # as if they were large
    assert (
        "All 5 files are as they were exported" in invoke("inspect", str(folder), "--check").stdout
    )
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[1000] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    assert invoke("inspect", str(folder)).exit_code == 0
    result = invoke("inspect", str(folder), "--check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: weights.bin ")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "weights.bin").unlink(), "weights.bin of the bundle is missing"),
        (lambda f: (f / "weights.bin").write_bytes(b"x"), "weights.bin has 1 bytes"),
        (lambda f: (f / "head.onnx").write_bytes(bytes(len(graph()))), "head.onnx is not the file"),
        (lambda f: (f / "edgedec.json").write_text("{"), "edgedec.json is not JSON"),
        (lambda f: (f / "edgedec.json").write_text("{}"), "edgedec.json does not fit the format"),
        (lambda f: (f / "edgedec.json").write_text('{"schema_version": 99}'), "upgrade edgedec"),
    ],
)
def test_damage_is_one_sentence(
    invoke: Invoke, folder: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(folder)
    result = invoke("inspect", str(folder))
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert sentence in line
