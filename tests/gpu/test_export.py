"""Exports for GPUs: what is written, what is refused with nothing written, and the check before."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.models import make
from tests.export.tiny import write
from tests.gpu.fakes.trt import FakeTrt

from edgedec.builtin import resolve_bundle
from edgedec.devices.gpu import lowering
from edgedec.errors import (
    BundleError,
    CheckFailedError,
    EdgedecError,
    InputError,
    MissingDependencyError,
)
from edgedec.export import export_checkpoint
from edgedec.export.gpu import host
from edgedec.export.gpu.options import GpuOptions, asked_limits
from edgedec.export.model import task_scores
from edgedec.export.places import Place, place
from edgedec.quantize.pool import Pool
from edgedec.quantize.text.text_files import TextPair
from edgedec.runtime.bundle import open_bundle, verify_files
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Limits, Manifest, dump_manifest, load_manifest

INPUTS = [[10], [15, 12, 4, 15, 20, 23, 26], [11, 29]]


@pytest.fixture(autouse=True)
def without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorRT-RTX builds is looked at where a test asks for it."""
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint") / "t5", "t5")


@pytest.fixture(scope="module")
def plain(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the CPU."""
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("plain") / "t5", verify=False)


@pytest.fixture(scope="module")
def coded(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with codes of 8 bits, whose products round their inputs."""
    out = tmp_path_factory.mktemp("coded") / "t5"
    return export_checkpoint(checkpoint, out, quant="int8", verify=False)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a bundle whose files are what it says."""
    bundle = open_bundle(folder)
    verify_files(bundle)
    return bundle.manifest


def tokens(folder: Path) -> list[Any]:
    """What a bundle says on the CPU, greedily."""
    generator = Generator(open_bundle(folder), device="cpu", threads=1)
    results = generator.generate(INPUTS, num_beams=1, max_new_tokens=6)
    return [result.tokens for result in results]


def devices(manifest: Manifest) -> dict[str, str]:
    return {name: component.device for name, component in manifest.components.items()}


def test_an_ordinary_bundle_with_limits(checkpoint: Path, plain: Path, tmp_path: Path) -> None:
    out = export_checkpoint(checkpoint, tmp_path / "b", device="cuda", max_rows=3, max_target=40)
    found, usual = manifest_of(out), manifest_of(plain)
    assert devices(found) == {"encoder": "cuda", "decoder": "cuda"}
    assert found.limits == Limits(rows=3, source=512, target=40)
    assert found.interface == usual.interface
    assert found.files == usual.files
    assert found.verified is not None
    assert tokens(out) == tokens(plain)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_bundle_is_copied(coded: Path, tmp_path: Path) -> None:
    out = export_checkpoint(coded, tmp_path / "b", device="encoder=cpu,decoder=tensorrt")
    found, usual = manifest_of(out), manifest_of(coded)
    assert devices(found) == {"encoder": "cpu", "decoder": "tensorrt"}
    assert (found.files, found.codebooks) == (usual.files, usual.codebooks)
    assert tokens(out) == tokens(coded)
    again = export_checkpoint(out, tmp_path / "c", device="tensorrt-rtx", max_rows=2, verify=False)
    limits = manifest_of(out).limits
    assert limits is not None
    assert manifest_of(again).limits == replace(limits, rows=2)
    assert set(devices(manifest_of(again)).values()) == {"tensorrt-rtx"}


def test_codes_in_one_go(checkpoint: Path, tmp_path: Path) -> None:
    out = export_checkpoint(
        checkpoint, tmp_path / "b", device="tensorrt", quant="cb4", method="kmeans", max_source=9
    )
    found = manifest_of(out)
    assert found.codebooks is not None
    assert found.limits is not None
    assert found.limits.source == 9
    assert set(devices(found).values()) == {"tensorrt"}


def test_codes_for_a_bundle(plain: Path, tmp_path: Path) -> None:
    out = export_checkpoint(plain, tmp_path / "b", device="cuda", quant="int8", verify=False)
    assert manifest_of(out).codebooks is not None
    assert set(devices(manifest_of(out)).values()) == {"cuda"}


def test_a_decoder_alone(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "c", "llama")
    out = export_checkpoint(checkpoint, tmp_path / "b", device="tensorrt-rtx")
    assert manifest_of(out).limits == Limits(rows=16, source=None, target=24)  # all that it takes
    with pytest.raises(InputError, match="no encoder; write --device cuda"):
        export_checkpoint(checkpoint, tmp_path / "d", device="encoder=cuda")
    with pytest.raises(InputError, match=r"--max-source 4 is not for this model.* --max-target"):
        export_checkpoint(checkpoint, tmp_path / "d", device="cuda", max_source=4)
    assert {path.name for path in tmp_path.iterdir()} == {"b", "c"}


def test_stages_with_all_that_policies_need(tmp_path: Path) -> None:
    """Also what no check runs is lowered and opened."""
    bundle = make("t5", tmp_path / "a").bundle
    generation = replace(bundle.manifest.generation, decoder_start_token_id=0)
    text = dump_manifest(replace(bundle.manifest, generation=generation))
    (bundle.folder / "edgedec.json").write_text(text)
    out = export_checkpoint(bundle.folder, tmp_path / "b", device="cuda")
    found = devices(manifest_of(out))
    assert set(found.values()) == {"cuda"}
    assert {"router", "meta", "head", "decoder.1-3.fill"} <= found.keys()


def test_an_npu_has_no_such_limits(plain: Path, tmp_path: Path) -> None:
    gpu = export_checkpoint(plain, tmp_path / "g", device="cuda", verify=False)
    out = export_checkpoint(
        gpu, tmp_path / "b", device="encoder=qnn", verify=False, quant="fp16", max_source=8
    )
    assert manifest_of(out).limits is None
    assert devices(manifest_of(out)) == {"encoder": "qnn", "decoder": "cpu"}
    with pytest.raises(InputError, match="have fixed shapes already, for an NPU"):
        export_checkpoint(out, tmp_path / "d", device="cuda")


def test_a_gpus_bundle_is_measured_on_the_cpu(tmp_path: Path) -> None:
    """What quantizing it asks for, where there is no GPU."""
    folder = resolve_bundle("g2p")
    out = export_checkpoint(folder, tmp_path / "b", device="tensorrt", verify=False)
    pairs = [TextPair("hello", "HH AH0 L OW1")]
    with Pool(1) as pool:
        found = [
            task_scores(open_bundle(b), pairs, pool, lambda _w, _f: None) for b in (folder, out)
        ]
    assert found[0] == found[1] != ()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"device": "auto"}, "choose among cpu, qnn, openvino, tensorrt, tensorrt-rtx, cuda"),
    ({"device": "tensorrt:native"}, "takes 'tensorrt' alone; the form of its graphs is chosen"),
    ({"device": "encoder=cuda,decoder=tensorrt"}, "a bundle is for one NPU or GPU"),
    ({"device": "encoder=qnn,decoder=cuda"}, "a bundle is for one NPU or GPU"),
    ({"device": "cpu", "max_rows": 4}, "--max-rows 4 is for GPUs: add --device tensorrt"),
    ({"device": "cpu", "engines": "e"}, "--engines e is for GPUs"),
    ({"device": "cpu", "max_target": 8}, "--max-target 8 is for NPUs and GPUs"),
    ({"device": "qnn", "max_rows": 4}, "--max-rows 4 is not for --device qnn, but for GPUs"),
    ({"kv": "fp16"}, "--kv fp16 is not for --device cuda, but for NPUs: leave it out"),
    ({"unroll": 4}, "--unroll 4 is not for --device cuda"),
    ({"quant": "nbits8"}, "choose one of cb4"),
    ({"quant": "int8", "dtype": "fp16"}, "give one of the two"),
    ({"max_rows": 0}, "--max-rows 0: give 1 to 65,536"),
    ({"max_source": 0}, "--max-source 0: give 1 to"),
    ({"max_target": 1}, "--max-target 1: give 2 to"),
    ({"min_agreement": 1.5}, "--min-agreement 1.5: give 0 to 1"),
    ({"min_agreement": 0.9, "verify": False}, "contradict each other"),
    ({"engines": "e"}, "ONNX Runtime runs the graphs themselves; leave it out"),
    ({"device": "encoder=cuda", "max_target": 9}, "leaves on the CPU: leave it out"),
    ({"stages": "all"}, "--stages all says how to export a checkpoint"),
    ({"dtype": "fp16"}, "--dtype fp16 says how to export a checkpoint"),
    ({"method": "kmeans"}, "--method kmeans needs"),
    ({"portable": True}, "--portable needs"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_options_that_cannot_be(
    plain: Path, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(EdgedecError) as error:
        export_checkpoint(plain, tmp_path / "b", **{"device": "cuda", **options})
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_must_stay(plain: Path, coded: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lie inside of it"):
        export_checkpoint(plain, plain, device="cuda", force=True)
    with pytest.raises(InputError, match="are codes already"):
        export_checkpoint(coded, tmp_path / "b", device="cuda", quant="int8")
    out = export_checkpoint(plain, tmp_path / "b", device="cuda", verify=False)
    with pytest.raises(InputError, match="replace it with --force"):
        export_checkpoint(plain, out, device="cuda", verify=False)
    weights = out / "weights.bin"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(BundleError, match=r"weights\.bin is not the file that was exported"):
        export_checkpoint(out, tmp_path / "c", device="cuda", verify=False)
    assert {path.name for path in tmp_path.iterdir()} == {"b"}


@given(
    most=st.tuples(st.none() | st.integers(2, 4000), st.none() | st.integers(2, 4000)),
    asked=st.tuples(*[st.none() | st.integers(2, 5000)] * 3),
)
def test_limits_reach_no_farther_than_the_model(
    plain: Path,
    most: tuple[int | None, int | None],
    asked: tuple[int | None, int | None, int | None],
) -> None:
    manifest = open_bundle(plain).manifest
    io = replace(manifest.interface, max_source=most[0], max_target=most[1])
    manifest = replace(manifest, interface=io)
    cuda = Place("cuda", frozenset({"encoder", "decoder"}))
    rows, source, target = asked
    options = GpuOptions("cuda", cuda, max_rows=rows, max_source=source, max_target=target)
    beyond = [n for n, m in zip(asked[1:], most, strict=True) if n and m and n > m]
    if beyond:
        with pytest.raises(InputError, match="give that or fewer"):
            asked_limits(manifest, options)
        return
    found = asked_limits(manifest, options)
    for wanted, got in zip(asked, (found.rows, found.source, found.target), strict=True):
        assert wanted is None or got == wanted
    assert load_manifest(dump_manifest(replace(manifest, limits=found))).limits == found


@pytest.mark.parametrize(
    "limits",
    [
        Limits(0, 9, 9),
        Limits(1, None, 9),
        Limits(1, 0, 9),
        Limits(1, 31, 9),
        Limits(1, 9, 41),
        Limits(1 << 21, 9, 9),
    ],
)
def test_limits_that_no_manifest_has(plain: Path, limits: Limits) -> None:
    manifest = open_bundle(plain).manifest
    io = replace(manifest.interface, max_source=30, max_target=40)
    text = dump_manifest(replace(manifest, interface=io, limits=limits))
    with pytest.raises(BundleError, match="'limits' cannot be"):
        load_manifest(text)


def test_places() -> None:
    found = place("encoder=cpu,decoder=tensorrt-rtx")
    assert found == Place("tensorrt-rtx", frozenset({"decoder"}))
    assert (found.device_of(encoder=True), found.device_of(encoder=False)) == (
        "cpu",
        "tensorrt-rtx",
    )


def spoiled(change: Callable[[Any], Any]) -> Callable[..., lowering.Resident]:
    """Lowering that changes the numbers that a head computes with."""

    def lower(*arguments: Any) -> lowering.Resident:
        resident = lowering.resident_graph(*arguments)
        for value in resident.model.graph.initializers.values():
            assert value.const_value is not None
            array = value.const_value.numpy()
            if array.size > 200 and array.dtype.kind == "f":
                value.const_value = ir.tensor(np.array(change(array)))
        return resident

    return lower


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a[::-1], r"at 0\.\d+ of \d+ places .* of which 16 bits would explain 0\.05"),
        (lambda a: np.full_like(a, np.inf), "infinite or none, because a value of this model"),
    ],
)
def test_graphs_that_compute_something_else(
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Any], Any],
    sentence: str,
) -> None:
    monkeypatch.setattr(host, "resident_graph", spoiled(change))
    with pytest.raises(CheckFailedError, match=sentence):
        export_checkpoint(plain, tmp_path / "b", device="cuda")
    assert list(tmp_path.iterdir()) == []
    out = export_checkpoint(plain, tmp_path / "b", device="cuda", min_agreement=0)
    assert manifest_of(out).limits is not None


def test_how_close_they_are(coded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgedec.export.gpu"):
        export_checkpoint(coded, tmp_path / "b", device="cuda")
    (line,) = [r for r in caplog.records if r.name == "edgedec.export.gpu.verify"]
    assert isinstance(line.args, tuple)
    agreement, count, error = line.args
    assert (count, agreement) == (128, pytest.approx(1.0, abs=0.02))
    # Against products that round their inputs to int8, it would be 0.01 and more.
    assert 0 < float(str(error)) < 5e-3


def test_engines_without_what_builds_them(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"--engines: .*pip install.*leave out"):
        export_checkpoint(
            plain, tmp_path / "b", device="tensorrt-rtx", engines=tmp_path / "e", verify=False
        )
    assert list(tmp_path.iterdir()) == []


def test_engines_inside_of_the_bundle(plain: Path, tmp_path: Path) -> None:
    for engines in (tmp_path / "b" / "e", tmp_path / "b", tmp_path):
        with pytest.raises(InputError, match="lie inside of each other"):
            export_checkpoint(plain, tmp_path / "b", device="tensorrt-rtx", engines=engines)


def written(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir())


def test_engines_of_a_stand_in(plain: Path, tmp_path: Path, trt: FakeTrt) -> None:
    """With an index, and beside the bundle or not at all."""
    assert trt.__version__
    where: dict[str, Any] = {
        "device": "decoder=tensorrt",
        "engines": tmp_path / "e",
        "verify": False,
    }
    out = export_checkpoint(plain, tmp_path / "b", **where)
    index = json.loads((tmp_path / "e" / "engines.json").read_text())
    assert index["engines"] == {
        "decoder": {"engine": "tensorrt-decoder.engine", "facts": "tensorrt-decoder.json"}
    }
    assert index["limits"] == json.loads((out / "edgedec.json").read_text())["limits"]
    assert index["generation"]["decoder_start_token_id"] == 0
    names = ["engines.json", "tensorrt-decoder.engine", "tensorrt-decoder.json"]
    assert written(tmp_path / "e") == names
    with pytest.raises(InputError, match=r"'.*e' exists: .*--force"):
        export_checkpoint(plain, tmp_path / "c", **where)
    export_checkpoint(plain, out, **where, force=True)
    assert written(tmp_path / "e") == names
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").write_text("mine")
    with pytest.raises(InputError, match="exists and is no folder of engines"):
        export_checkpoint(
            plain, tmp_path / "c", **(where | {"engines": tmp_path / "mine", "force": True})
        )
    assert written(tmp_path) == ["b", "e", "mine"]


@pytest.fixture
def real_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX itself, which builds without a GPU."""
    monkeypatch.undo()
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgedec[tensorrt-rtx]'")


@pytest.mark.usefixtures("real_rtx")
def test_engines_of_tensorrt_rtx(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the encoder, which takes seconds less."""
    where: dict[str, Any] = {"device": "encoder=tensorrt-rtx", "max_source": 8, "max_rows": 2}
    with caplog.at_level(logging.INFO, "edgedec.export.gpu"):
        export_checkpoint(plain, tmp_path / "b", **where)
    assert "TensorRT-RTX builds engines of all graphs" in caplog.text
    export_checkpoint(plain, tmp_path / "c", **where, engines=tmp_path / "e", verify=False)
    index = json.loads((tmp_path / "e" / "engines.json").read_text())
    (files,) = index["engines"].values()
    facts = json.loads((tmp_path / "e" / files["facts"]).read_text())
    assert (tmp_path / "e" / files["engine"]).stat().st_size > 1000
    assert facts["limits"] == index["limits"]
