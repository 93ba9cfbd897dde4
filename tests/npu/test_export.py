"""Exports for NPUs: what is written, and what is refused with nothing written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.npu.exports import LENGTHS, manifest_of, take_few_tokens, tokens

from edgedec.errors import DeviceError, EdgedecError, InputError
from edgedec.export import export_checkpoint
from edgedec.export.npu.options import NpuOptions, shapes_of
from edgedec.export.places import Place, place, place_in
from edgedec.runtime.bundle import open_bundle


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    take_few_tokens(monkeypatch)


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


def test_a_decoder_with_chunks(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    plain = export_checkpoint(checkpoints["llama"], tmp_path / "p", verify=False)
    out = export_checkpoint(
        checkpoints["llama"],
        tmp_path / "b",
        device="qnn",
        quant="fp16",
        verify=False,
        chunk=4,
        max_target=16,
    )
    assert set(manifest_of(out).components) == {"decoder", "prefill"}
    inputs = [[3, 4, 5], [7, 9, 11, 13, 8, 6]]
    assert tokens(out, "cpu", inputs) == tokens(plain, inputs=inputs)


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


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_beams": 4, "no_repeat_ngram_size": 3}, "num_beams 4, no_repeat_ngram_size 3"),
        ({"do_sample": True, "top_k": 5}, "do_sample True"),
        ({"min_length": 5}, "min_length 5"),
        ({"forced_bos_token_id": 3, "length_penalty": 2.0}, None),  # chosen without scores
    ],
)
def test_several_steps_of_what_needs_scores(
    plain: Path, tmp_path: Path, settings: dict[str, Any], named: str | None
) -> None:
    """The checkpoint's settings, which `edgedec run` would follow."""
    source = shutil.copytree(plain, tmp_path / "source")
    manifest = json.loads((plain / "edgedec.json").read_text())
    manifest["generation"].update(settings)
    (source / "edgedec.json").write_text(json.dumps(manifest))
    out, asked = tmp_path / "b", {"device": "qnn", "verify": False, **LENGTHS}
    if named is None:
        export_checkpoint(source, out, unroll=3, **asked)
        return
    with pytest.raises(InputError) as error:
        export_checkpoint(source, out, unroll=3, **asked)
    assert "--unroll 3 makes graphs without scores" in str(error.value)
    assert f"({named}): leave out --unroll." in str(error.value)
    assert not out.exists()


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
