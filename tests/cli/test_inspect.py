"""`edgedec inspect` on a bundle made by hand, without exporter or weights, and on checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from onnx import TensorProto, helper
from tests.export.tiny import lora, random, tensors, write, write_adapter

from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    Agreement,
    BiasTable,
    CodebookMatrix,
    CodebookPart,
    Codebooks,
    Component,
    DepthPoint,
    DepthTable,
    FileEntry,
    Grid,
    Interface,
    Limits,
    Manifest,
    Rounding,
    Source,
    Stage,
    Static,
    StaticDecoder,
    Verified,
    dump_manifest,
)

Invoke = Callable[..., Result]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
        files={name: FileEntry(len(data), sha256(data)) for name, data in files.items()},
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


def fixed(manifest: Manifest) -> Manifest:
    """The bundle as if its decoder were one graph of fixed shapes, compiled for two chips."""
    files = {f"{name}.onnx": manifest.files["encoder.onnx"] for name in ("encoder", "sm8650", "x")}
    table = FileEntry(3 * 2 * 48 * 4, "0" * 64)
    static = Static(
        kv_heads=2,
        decoder=StaticDecoder(16, 31, 4, None, None, BiasTable("decoder.bias.bin", 3, 48)),
        grids={"past.0.self.key": Grid(0.1, 128)},
        eight=("decoder/decoder.0.self_attn.q",),
        projection={"decoder.0.self_attn.q": 1e-5, "head": 2.5e-4},
        agreement=Agreement("words.txt", 12, 512, "sm8650", 0.998, 0.9961, 1.0),
    )
    contexts = {"sm8650": "sm8650.onnx", "sm8550+sm8750": "x.onnx"}
    return replace(
        manifest,
        interface=replace(manifest.interface, max_source=16, max_target=32),
        components={
            "encoder": manifest.components["encoder"],
            "decoder": Component("sm8650.onnx", "qnn", "w4a16", contexts),
        },
        stages=(Stage("decoder", 0, 3),),
        head=None,
        static=static,
        files={**files, "decoder.bias.bin": table},
    )


def test_graphs_of_fixed_shapes(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    manifest = fixed(write_bundle(folder, None))
    table = np.zeros((3, 96), "<f4").tobytes()
    files = {**manifest.files, "decoder.bias.bin": FileEntry(len(table), sha256(table))}
    for name in ("sm8650", "x"):
        (folder / f"{name}.onnx").write_bytes((folder / "encoder.onnx").read_bytes())
    (folder / "decoder.bias.bin").write_bytes(table)
    (folder / "edgedec.json").write_text(dump_manifest(replace(manifest, files=files)))
    result = invoke("inspect", str(folder))
    assert result.exit_code == 0, result.output
    shares = "0.9980 on the simulator of sm8650, 0.9961 on the CPU"
    for line in (
        "decoder          of fixed shapes: 32 tokens, a source of 16, 4 greedy steps in one run",
        "keys and values  integers",
        "of 8 bits        1 of the weights: fewer would harm the model most",
        "codes            re-expressed, squared error up to 2.5e-04 of the codes' (head)",
        f"agreement        {shares}, over 512 tokens of words.txt",
        "decoder  0-2     qnn:sm8650         w4a16      sm8650.onnx",
        "decoder  0-2     qnn:sm8550+sm8750  w4a16      x.onnx",
    ):
        assert f"{line}\n" in result.stdout
    assert "encoder          of fixed" not in result.stdout


def test_how_far_a_gpu_reaches(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    manifest = replace(write_bundle(folder, None), limits=Limits(4, 64, 500))
    (folder / "edgedec.json").write_text(dump_manifest(manifest))
    result = invoke("inspect", str(folder))
    assert "on a GPU    4 rows, source 64 tokens, target 500 tokens\n" in result.stdout


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


def deep(manifest: Manifest) -> Manifest:
    """The bundle as if it had been made for policies, and these been compared."""
    stages = (manifest.stages[0], Stage("decoder.2-3", 2, 3, {"fill": "decoder.2-3.fill"}))
    extra = ("decoder.2-3.fill", "meta", "router")
    graphs = {name: Component(f"{name}.onnx", "cpu", "fp32") for name in extra}
    data = graph()
    entry = FileEntry(len(data), sha256(data))
    point = DepthPoint("early-exit:threshold=0.8", 0.995, 2.25, 1.5, 1.3)
    return replace(
        manifest,
        stages=stages,
        components=manifest.components | graphs,
        files=manifest.files | {component.file: entry for component in graphs.values()},
        meta="meta",
        router="router",
        routed=(0, 1, 2),
        policies={
            "full": {},
            "early-exit": {"threshold": 0.9, "exits": [1, 2]},
            "first": {"layers": None},
        },
        depth=DepthTable("words.txt", 200, "agreement", "some processor", 1, (point,)),
    )


def test_policies_variants_and_the_depth_table(invoke: Invoke, tmp_path: Path) -> None:
    manifest = deep(write_bundle(tmp_path / "b", None))
    for name in ("decoder.2-3.fill", "meta", "router"):
        (tmp_path / "b" / f"{name}.onnx").write_bytes(graph())
    (tmp_path / "b" / "edgedec.json").write_text(dump_manifest(manifest), encoding="utf-8")
    result = invoke("inspect", str(tmp_path / "b"))
    assert result.exit_code == 0, result.output
    for line in (
        "policies    full, early-exit, first",
        "policy      parameters",
        "early-exit  threshold=0.9, exits=1,2",
        "compared on  200 inputs of words.txt, by agreement",
        "measured on  some processor, 1 threads",
        "early-exit:threshold=0.8   0.9950    2.25         1.500  1.30",
        "decoder.2-3.fill  2-2     cpu     fp32       decoder.2-3.fill.onnx",
        "router            0-2     cpu     fp32       router.onnx",
    ):
        assert f"{line}\n" in result.stdout
    assert json.loads(invoke("inspect", str(tmp_path / "b"), "--json").stdout)["routed"] == [
        0,
        1,
        2,
    ]


def put(path: str, value: Any) -> Callable[[Any], None]:
    """Set what a path of keys leads to."""
    *keys, last = path.split(".")

    def change(item: Any) -> None:
        for key in keys:
            item = item[int(key) if isinstance(item, list) else key]
        item[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("stages.1.variants", {"deep": "meta"}), "a variant that is not known"),
        (put("stages.1.variants", {"fill": "none"}), "component that is not listed"),
        (put("stages.1.variants", {"fill": "decoder.2-3"}), "one component is named twice"),
        (put("stages.1.variants", {"fill": "meta"}), "one component is named twice"),
        (put("stages.1.variants", {"fill": 3}), "stages.1.variants.fill"),
        (
            put("stages.0.variants", {"low-rank": "decoder.2-3.fill"}),
            "the first stage has a variant",
        ),
        (put("meta", "none"), "component that is not listed"),
        (put("meta", "head"), "one component is named twice"),
        (put("router", None), "'router' and 'routed' contradict"),
        (put("routed", []), "'router' and 'routed' contradict"),
        (put("routed", [0, 3]), "'routed' is no increasing list"),
        (put("routed", [-1, 0]), "'routed' is no increasing list"),
        (put("routed", [1, 1]), "'routed' is no increasing list"),
        (put("depth.points", []), "the depth table cannot be"),
        (put("depth.inputs", 0), "the depth table cannot be"),
        (put("depth.threads", -1), "the depth table cannot be"),
        (put("depth.machine", None), "depth.machine"),
        (put("policies", {"first": 1}), "policies.first"),
    ],
)
def test_depth_that_cannot_be(
    invoke: Invoke, tmp_path: Path, change: Callable[[Any], None], sentence: str
) -> None:
    value = json.loads(dump_manifest(deep(write_bundle(tmp_path / "b", None))))
    change(value)
    (tmp_path / "b" / "edgedec.json").write_text(json.dumps(value), encoding="utf-8")
    result = invoke("inspect", str(tmp_path / "b"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


@pytest.mark.parametrize("key", ["quality", "layers", "milliseconds", "speedup"])
@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), 10**400, "1"])
def test_numbers_of_the_depth_table(
    invoke: Invoke, tmp_path: Path, key: str, number: object
) -> None:
    value = json.loads(dump_manifest(deep(write_bundle(tmp_path / "b", None))))
    value["depth"]["points"][0][key] = number
    (tmp_path / "b" / "edgedec.json").write_text(json.dumps(value), encoding="utf-8")
    result = invoke("inspect", str(tmp_path / "b"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "edgedec.json" in result.stderr


def test_checkpoints(invoke: Invoke, tmp_path: Path) -> None:
    own = {"exit_layers": [2, 3, 5], "depth": {"free": {"exit": 2}}}
    folder = write(tmp_path / "c", "t5", {"router.1.weight": random(1, 16)}, edgedec=own)
    result = invoke("inspect", str(folder))
    assert result.exit_code == 0, result.output
    for line in (
        "model       t5, encoder-decoder",
        "layers      encoder 1, decoder 5",
        "exits              after layers 2-3",
        "first              routers of layers 1, threshold 0.5",
        "early-exit  early-exit:exits=2-3",
        "free        free:exit=2",
        "skipdecode  skipdecode:min=...,max=...",
    ):
        assert f"{line}\n" in result.stdout
    assert "lora-drop   no: the checkpoint has no adapters" in result.stdout
    facts = json.loads(invoke("inspect", str(folder), "--json").stdout)
    assert facts["depth"]["routers"] == {"layers": [1], "threshold": 0.5}
    assert facts["depth"]["lora_drop"] is None
    assert {"policy": "free", "depth": "free:exit=2", "reason": None} in facts["policies"]


def test_an_adapter_alone(invoke: Invoke, tmp_path: Path) -> None:
    base = write(tmp_path / "c", "llama")
    stored = lora(tensors("llama"), "model.layers.1.self_attn.q_proj")
    folder = write_adapter(tmp_path / "a", stored, base_model_name_or_path="someone/llama")
    refused = invoke("inspect", str(folder))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--base" in refused.stderr
    result = invoke("inspect", str(folder), "--base", str(base))
    assert "LoRA               of rank 2 in 1 modules (PEFT)\n" in result.stdout
    for flags, sentence in (
        ((str(folder), "--check"), "--check compares a bundle's files"),
        (("g2p", "--base", str(base)), "--base is for adapters"),
    ):
        wrong = invoke("inspect", *flags)
        assert (wrong.exit_code, wrong.stdout) == (2, "")
        assert sentence in wrong.stderr


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
