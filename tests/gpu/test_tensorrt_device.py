"""TensorRT and TensorRT-RTX as devices, from a bundle to texts, with a stand-in for both."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gpu.fakes.cuda import FakeCuda
from tests.gpu.fakes.trt import FakeTrt

from edgedec.devices.tensorrt import device
from edgedec.devices.tensorrt_rtx import device as rtx_device
from edgedec.errors import DeviceError, InputError, MissingDeviceError
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.generator import Generator, load
from edgedec.runtime.resident.limits import limits_of

WORDS = ["deployment", "edge", "a", "quantisation"]


def texts(generator: Generator, **options: Any) -> list[str | None]:
    return [result.text for result in generator.generate(WORDS, **options)]


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorrt", "trt"), ("tensorrt:native", "trt"), ("tensorrt-rtx", "rtx")],
)
def test_g2p_with_codes_gives_the_cpus_texts(
    cuda: FakeCuda,
    cache: Path,
    coded_g2p: Path,
    name: str,
    module: str,
    request: pytest.FixtureRequest,
) -> None:
    fake: FakeTrt = request.getfixturevalue(module)
    expected = texts(load(coded_g2p, "cpu"))
    generator = load(coded_g2p, name)
    assert texts(generator) == expected
    assert texts(generator, batch_size=1) == expected
    assert cuda.recorded > 0
    assert fake.built == 2
    assert fake.registered == (name == "tensorrt")


@pytest.mark.parametrize("port", ["logits", "cross.0.key"])
def test_what_is_no_number_is_not_taken_for_a_text(
    trt: FakeTrt, cache: Path, coded_g2p: Path, port: str
) -> None:
    # The greatest of no numbers is a token, too, and greedy decoding asks for nothing else.
    def damage(name: str, values: Any) -> Any:
        return np.nan if name == port else 0 if name == "next_token" else values

    trt.damage = damage
    with pytest.raises(DeviceError, match=f"{port} is not finite"):
        texts(load(coded_g2p, "tensorrt:native"))


@pytest.mark.parametrize(
    "name", ["encoder=tensorrt-rtx,decoder=cpu", "encoder=cpu,decoder=tensorrt-rtx"]
)
def test_parts_on_the_cpu_are_fed_by_parts_on_the_gpu_and_feed_them(
    rtx: FakeTrt, cache: Path, coded_g2p: Path, name: str
) -> None:
    assert texts(load(coded_g2p, name)) == texts(load(coded_g2p, "cpu"))
    assert rtx.built == 1


def test_beams_are_the_cpus(rtx: FakeTrt, cache: Path, coded_g2p: Path) -> None:
    expected = texts(load(coded_g2p, "cpu"), num_beams=3)
    assert texts(load(coded_g2p, "tensorrt-rtx"), num_beams=3) == expected


def test_a_second_opening_builds_and_lowers_nothing(
    trt: FakeTrt, cache: Path, small_t5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(small_t5, "tensorrt").generate([[3, 4, 5]], max_new_tokens=6)
    assert sorted(path.suffix for path in cache.iterdir() if path.suffix != ".lock") == [
        ".engine",
        ".engine",
        ".json",
        ".json",
    ]
    monkeypatch.delattr("edgedec.devices.gpu.lowering.resident_graph")
    again = load(small_t5, "tensorrt").generate([[3, 4, 5]], max_new_tokens=6)
    assert [result.tokens for result in again] == [result.tokens for result in first]
    assert (trt.built, trt.loaded) == (2, 4)


def test_without_the_plugin_the_native_form_runs_and_a_sentence_says_so(
    trt: FakeTrt,
    cache: Path,
    small_t5: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(module: FakeTrt) -> None:
        raise DeviceError("this TensorRT takes no plugins: take another.")

    monkeypatch.setattr("edgedec.kernels.tensorrt.plugin.register", refuse)
    with caplog.at_level(logging.WARNING, "edgedec"):
        generator = load(small_t5, "tensorrt")
    said = [record.message for record in caplog.records if "without our plugin" in record.message]
    assert len(said) == 2
    assert "this TensorRT takes no plugins" in said[0]
    assert generator.generate([[3, 4]], max_new_tokens=3)
    with pytest.raises(DeviceError, match="takes no plugins"):
        load(small_t5, "tensorrt:plugin")


def test_a_graph_without_codes_needs_no_plugin(trt: FakeTrt, cache: Path, staged_g2p: Path) -> None:
    bundle = open_bundle(staged_g2p)
    name = bundle.manifest.stages[1].component
    device(None, allow_fallback=False).open_resident(
        bundle, name, limits_of(bundle.manifest), threads=None
    )
    assert not trt.registered


@pytest.mark.parametrize("depth", ["early-exit:threshold=0.5", "full"])
def test_stages_with_policies_give_the_cpus_texts(
    rtx: FakeTrt, cache: Path, deep_g2p: Path, depth: str
) -> None:
    expected = texts(load(deep_g2p, "cpu", depth=depth))
    assert texts(load(deep_g2p, "tensorrt-rtx", depth=depth)) == expected


def test_without_a_gpu_there_is_one_sentence(
    cuda: FakeCuda, rtx: FakeTrt, cache: Path, small_t5: Path
) -> None:
    cuda.gpus = 0
    with pytest.raises(MissingDeviceError, match="finds no GPU"):
        load(small_t5, "tensorrt-rtx")
    report = rtx_device(None, allow_fallback=False).report()
    assert not report.available
    assert "finds no GPU" in str(report.reason)


def test_rtx_builds_for_apps_without_a_gpu(cuda: FakeCuda, rtx: FakeTrt, small_t5: Path) -> None:
    cuda.gpus = 0
    bundle = open_bundle(small_t5)
    limits = limits_of(bundle.manifest)
    data, facts = rtx_device(None, allow_fallback=False).build(bundle, "decoder", limits, "native")
    assert facts.fits(data)
    assert not facts.fits(data + b"x")
    assert facts.gpu is None
    assert facts.limits == limits
    width = facts.inputs["past.0.self.key"].shape
    assert width == (-1, 2, limits.target, 4)
    present = facts.outputs["present.0.self.key"]
    assert (present.type, present.shape) == ("float16", width)
    assert present.alias == "past.0.self.key"
    assert facts.outputs["next_token"].alias is None


def test_reports_name_versions(trt: FakeTrt) -> None:
    report = device(None, allow_fallback=False).report()
    assert report.available
    assert report.runtime == "TensorRT 10.16.1.11, Fake GPU, CUDA 13.0"
    assert report.verified is not None
    assert "never executed on a GPU" in report.verified


def test_options_that_there_are_not_are_one_sentence() -> None:
    with pytest.raises(InputError, match="no option 'best'"):
        device("best", allow_fallback=False)
    with pytest.raises(InputError, match="no option 'plugin'"):
        rtx_device("plugin", allow_fallback=False)


def test_records_of_operators_are_refused(trt: FakeTrt, small_t5: Path, tmp_path: Path) -> None:
    bundle = open_bundle(small_t5)
    with pytest.raises(DeviceError, match="no records"):
        device(None, allow_fallback=False).open_resident(
            bundle, "decoder", limits_of(bundle.manifest), threads=None, records=tmp_path
        )


def test_a_warm_cache_needs_no_builder_of_graphs() -> None:
    code = (
        "import sys, edgedec.devices.tensorrt, edgedec.devices.tensorrt_rtx\n"
        "import edgedec.kernels.tensorrt.plugin\n"
        "print([name for name in sys.argv[1:] if name in sys.modules])"
    )
    heavy = ["onnx", "onnx_ir", "onnxscript", "triton", "torch", "tensorrt", "tensorrt_rtx", "cuda"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
