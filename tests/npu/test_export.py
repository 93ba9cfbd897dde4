"""Exports for NPUs: what is written, what is compared, and what is refused with nothing written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.export.tiny import VOCAB, write

from edgedec.devices.npu.lower import StaticModel
from edgedec.devices.qnn import Qnn
from edgedec.errors import CheckFailedError, DeviceError, EdgedecError, InputError
from edgedec.export import export_checkpoint
from edgedec.export.npu import pipeline, ranges, texts, verify
from edgedec.export.npu.options import NpuOptions, shapes_of
from edgedec.export.npu.places import Place, place, place_in
from edgedec.export.npu.texts import Passage, first_tokens
from edgedec.runtime.bundle import open_bundle, verify_files
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Manifest

INPUTS = [[10], [15, 12, 4, 15, 20, 23, 26], [11, 29], [21, 22, 18, 12, 10, 15]]
LENGTHS: dict[str, Any] = {"max_source": 8, "max_target": 12}


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models, and short texts for them: simulators take their time."""
    monkeypatch.setattr(texts, "TOKENS", 300)
    monkeypatch.setattr(ranges, "TOKENS", 300)
    monkeypatch.setattr(verify, "TOKENS", 30)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> a random checkpoint of it without a tokenizer."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: write(root / family, family) for family in ("t5", "llama")}


@pytest.fixture(scope="module")
def plain(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The T5 as a bundle as docs/bundle.md has it."""
    out = tmp_path_factory.mktemp("plain") / "t5"
    return export_checkpoint(checkpoints["t5"], out, verify=False)


@pytest.fixture(scope="module")
def coded(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with codes of 8 bits."""
    out = tmp_path_factory.mktemp("coded") / "t5"
    return export_checkpoint(checkpoints["t5"], out, quant="int8", compute="fp32", verify=False)


def tokens(folder: Path, device: str | None = None, inputs: Sequence[Any] = INPUTS) -> list[Any]:
    """What a bundle says, greedily."""
    generator = Generator(open_bundle(folder), device=device, threads=1)
    results = generator.generate(list(inputs), num_beams=1, max_new_tokens=8)
    return [result.tokens for result in results]


def manifest_of(folder: Path) -> Manifest:
    bundle = open_bundle(folder)
    verify_files(bundle)
    return bundle.manifest


def test_what_is_written(checkpoints: dict[str, Path], plain: Path, tmp_path: Path) -> None:
    out = export_checkpoint(
        checkpoints["t5"], tmp_path / "b", device="qnn", quant="fp16", verify=False, **LENGTHS
    )
    manifest = manifest_of(out)
    assert {(c.device, c.precision) for c in manifest.components.values()} == {("qnn", "fp16")}
    assert (manifest.interface.max_source, manifest.interface.max_target) == (8, 12)
    assert manifest.static is not None
    assert manifest.static.agreement is None
    assert manifest.static.decoder is not None
    assert (manifest.static.decoder.past, manifest.static.decoder.source) == (11, 8)
    assert tokens(out, "cpu") == tokens(plain)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("device", ["encoder=qnn,decoder=cpu", "decoder=qnn"])
def test_one_part_of_a_bundle_with_codes(coded: Path, tmp_path: Path, device: str) -> None:
    out = export_checkpoint(
        coded, tmp_path / "b", device=device, verify=False, max_source=8, kv="u8"
    )
    manifest = manifest_of(out)
    lowered = {name for name, c in manifest.components.items() if c.device == "qnn"}
    assert lowered == {device.partition("=")[0]}
    (kept,) = manifest.components.keys() - lowered
    assert manifest.codebooks is not None
    assert set(manifest.codebooks.matrices) == {kept}
    assert manifest.static is not None
    assert manifest.static.grids
    assert 0 < max(manifest.static.projection.values()) < 1e-3
    assert tokens(out, "cpu") == tokens(coded)


def test_a_decoder_with_chunks(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    plain = export_checkpoint(checkpoints["llama"], tmp_path / "p", verify=False)
    out = export_checkpoint(
        checkpoints["llama"], tmp_path / "b", device="qnn", verify=False, chunk=4, max_target=16
    )
    assert set(manifest_of(out).components) == {"decoder", "prefill"}
    inputs = [[3, 4, 5], [7, 9, 11, 13, 8, 6]]
    assert tokens(out, "cpu", inputs) == tokens(plain, inputs=inputs)


@pytest.mark.parametrize("options", [{"quant": "nbits8"}, {"quant": "w8a16", "unroll": 3}])
def test_the_simulator_agrees(
    simulator: Qnn, plain: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = export_checkpoint(plain, tmp_path / "b", device="qnn", **LENGTHS, **options)
    static = manifest_of(out).static
    assert static is not None
    assert static.agreement is not None
    assert (static.agreement.soc, static.agreement.text) == (simulator.target.name, texts.RANDOM)
    assert 30 <= static.agreement.tokens <= 60
    assert (static.agreement.device or 0) >= 0.97
    assert tokens(out) == tokens(plain)


def test_contexts_are_all_that_is_left(simulator: Qnn, plain: Path, tmp_path: Path) -> None:
    out = export_checkpoint(
        plain,
        tmp_path / "b",
        device="qnn",
        verify=False,
        soc="sm8550,sm8650",
        quant="fp16",
        **LENGTHS,
    )
    manifest = manifest_of(out)
    contexts = manifest.components["decoder"].contexts
    assert list(contexts) == ["sm8550", "sm8650"]
    graphs = {file for c in manifest.components.values() for file in c.contexts.values()}
    assert {path.name for path in out.glob("*.onnx")} == graphs
    assert "weights.bin" not in manifest.files
    assert tokens(out, f"qnn:{simulator.target.name}") == tokens(plain)
    with pytest.raises(DeviceError, match="compiled for sm8550, sm8650 and cannot run on the CPU"):
        tokens(out, "cpu")


def test_what_differs_is_refused(
    simulator: Qnn, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs whose head came out with the wrong sign."""
    del simulator
    lower = pipeline.__dict__["lower_static"]

    def broken(*arguments: Any) -> StaticModel:
        model: StaticModel = lower(*arguments)
        stored = model.models["decoder"].graph.initializers["head.weight"]
        assert stored.const_value is not None
        stored.const_value = ir.tensor(-stored.const_value.numpy(), name=stored.name)
        return model

    monkeypatch.setattr(pipeline, "lower_static", broken)
    with pytest.raises(CheckFailedError, match=r"at 0\.\d+ of \d+ places.*worst input: '"):
        export_checkpoint(plain, tmp_path / "b", device="qnn", quant="fp16", **LENGTHS)
    assert list(tmp_path.iterdir()) == []
    anyway = {"quant": "fp16", "min_agreement": 0.0, **LENGTHS}
    out = export_checkpoint(plain, tmp_path / "b", device="qnn", **anyway)
    static = manifest_of(out).static
    assert static is not None
    assert static.agreement is not None
    assert static.agreement.cpu < 0.97


def test_without_the_simulator(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedec.devices.qnn.missing", lambda: "it is not installed: pip install x")
    with pytest.raises(DeviceError, match=r"it is not installed: pip install x, or .*--no-verify"):
        export_checkpoint(plain, tmp_path / "b", device="qnn")
    with pytest.raises(DeviceError, match="pip install x"):
        export_checkpoint(plain, tmp_path / "b", device="qnn", verify=False, soc="sm8650")
    assert list(tmp_path.iterdir()) == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"device": "tpu"}, "choose among cpu, qnn, openvino"),
    ({"device": "qnn:sm8650"}, "name chips with --soc"),
    ({"device": "encoder=qnn,decoder=openvino"}, "a bundle is for one NPU"),
    ({"device": "encoder=qnn,encoder=cpu"}, "names the encoder's device twice"),
    ({"device": "cpu", "unroll": 2}, "--unroll 2 is for NPUs: add --device qnn"),
    ({"device": "cpu", "quant": "nbits8"}, "--quant nbits8 is for NPUs: add --device qnn"),
    ({"quant": "cb4"}, "--quant cb4 is for the CPU"),
    ({"stages": "all"}, "--stages all is not for --device qnn"),
    ({"depth": ("ngram",)}, "--depth ngram is not for --device qnn"),
    ({"dtype": "fp16"}, "--dtype fp16 is not for --device qnn"),
    ({"kv": "s16"}, "stored as fp16 or u8"),
    ({"quant": "w8a16", "kv": "fp16"}, "stored as u8 or s16"),
    ({"max_source": 0}, "--max-source 0: give 1 to 65,536"),
    ({"max_target": 1}, "--max-target 1: give 2 to"),
    ({"unroll": 0}, "--unroll 0: give 1 to 64"),
    ({"min_agreement": 1.5}, "--min-agreement 1.5: give 0 to 1"),
    ({"budget": 5.0}, "--quant nbits8 leaves no choice"),
    ({"quant": "nbits4", "budget": 3.0}, "mean bits per weight of 4 or more"),
    ({"device": "openvino", "soc": "sm8650"}, "--soc sm8650 is for --device qnn"),
    ({"soc": "sm1"}, "sm1"),
    ({"soc": "sm8650,sm8650"}, "names a chip twice"),
    ({"soc": "sm8350"}, "choose --quant w8a16, or another chip"),
    ({"share_contexts": True}, "--share-contexts is for contexts"),
    ({"verify": False, "min_agreement": 0.9}, "contradict each other"),
    ({"verify": False, "calibration": "t.txt"}, "nothing is calibrated"),
    ({"calibration": "no-such.txt", "quant": "w8a16"}, "no-such.txt cannot be read"),
    ({"chunk": 4}, "--chunk 4 is not for this model: its decoder reads no prompts"),
    ({"max_target": 8, "unroll": 9}, "--unroll 9 makes more steps than a target has tokens"),
    ({"device": "encoder=qnn", "unroll": 2}, "leaves on the CPU"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_options_that_cannot_be(
    plain: Path, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    asked = {"device": "qnn", "verify": "min_agreement" in options, **options}
    with pytest.raises(EdgedecError) as error:
        export_checkpoint(plain, tmp_path / "b", **asked)
    assert sentence in str(error.value)
    assert str(error.value).count("\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_graphs_of_fixed_shapes_are_no_source(plain: Path, tmp_path: Path) -> None:
    out = export_checkpoint(plain, tmp_path / "b", device="qnn", verify=False, **LENGTHS)
    with pytest.raises(InputError, match="have fixed shapes already"):
        export_checkpoint(out, tmp_path / "c", device="qnn", verify=False)
    with pytest.raises(InputError, match="lie inside of it"):
        export_checkpoint(out, out, device="qnn", verify=False, force=True)


def test_places() -> None:
    both = frozenset({"encoder", "decoder"})
    assert place("cpu") is None
    assert place("encoder=cpu,decoder=cpu") is None
    assert place("qnn") == Place("qnn", both)
    assert place("decoder=openvino") == Place("openvino", frozenset({"decoder"}))
    assert place_in("qnn", encodes=False) == Place("qnn", frozenset({"decoder"}))
    with pytest.raises(InputError, match="no encoder; write --device qnn"):
        place_in("encoder=qnn,decoder=cpu", encodes=False)


def test_lengths_suit_the_model(plain: Path) -> None:
    manifest = open_bundle(plain).manifest
    found = place("qnn")
    assert found is not None
    options = NpuOptions("qnn", found)
    assert shapes_of(manifest, options).source == shapes_of(manifest, options).target == 128
    short = replace(manifest, interface=replace(manifest.interface, max_source=20, max_target=30))
    assert (shapes_of(short, options).source, shapes_of(short, options).target) == (20, 30)
    with pytest.raises(InputError, match="--max-source 21: the model takes 20"):
        shapes_of(short, NpuOptions("qnn", found, max_source=21))
    alone = replace(short, encoder=None)
    assert (shapes_of(alone, options).source, shapes_of(alone, options).chunk) == (None, 29)
    with pytest.raises(InputError, match="use --max-target"):
        shapes_of(alone, NpuOptions("qnn", found, max_source=9))
    with pytest.raises(InputError, match="--chunk 30 is no part of --max-target 30"):
        shapes_of(alone, NpuOptions("qnn", found, chunk=30))


passages = st.lists(
    st.integers(1, 9).map(lambda n: Passage((1,), (0,), tuple(range(n)))), min_size=1, max_size=9
)


@given(passages, st.integers(1, 50))
def test_first_tokens_are_enough_and_no_more(some: list[Passage], wanted: int) -> None:
    found = first_tokens(some, wanted)
    counts = [len(passage.written) for passage in found]
    assert found == some[: len(found)]
    assert sum(counts) >= wanted or len(found) == len(some)
    assert sum(counts[:-1]) < wanted


def test_a_text_for_a_model_without_a_tokenizer(plain: Path, tmp_path: Path) -> None:
    """Random tokens that the model has, and what it says about them."""
    place_ = place("qnn")
    assert place_ is not None
    opened = open_bundle(plain)
    shapes = shapes_of(opened.manifest, NpuOptions("qnn", place_, **LENGTHS))
    bundle = texts.limited(opened, shapes)
    generator = Generator(bundle, threads=1)
    quiet = lambda _what, _fraction: None  # noqa: E731
    text = texts.read_text(bundle, None, generator, quiet)
    found = texts.passages_of(bundle, text, generator, quiet)
    assert all(0 < len(p.source or ()) <= 8 and p.prompt == (0,) for p in found)
    assert all(len(p.written) <= 12 for p in found)
    assert {t for p in found for t in p.read} <= set(range(VOCAB)) - {0, 1}
    said = generator.generate([list(p.source or ()) for p in found], num_beams=1)
    assert [tuple(result.tokens) for result in said] == [p.written for p in found]
    file = tmp_path / "t.txt"
    file.write_text("a text")
    with pytest.raises(InputError, match="no tokenizer to read it with"):
        texts.read_text(bundle, file, generator, quiet)


def test_an_interrupted_export_leaves_nothing(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgedec.export.npu.pipeline.apply_precision", stop)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(plain, tmp_path / "b", device="qnn", verify=False)
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes_every_time(plain: Path, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        out = export_checkpoint(
            plain, tmp_path / name, device="qnn", quant="w8a16", verify=False, **LENGTHS
        )
        files = json.loads((out / "edgedec.json").read_text())["files"]
        written.append({name: entry["sha256"] for name, entry in files.items()})
    assert written[0] == written[1]
