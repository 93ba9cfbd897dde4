"""Engines on disk: what belongs to their keys, and what becomes of damaged ones."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.gpu.fakes.cuda import FakeCuda
from tests.gpu.fakes.trt import FakeTrt

from edgedec.devices.base import resident_device
from edgedec.devices.gpu import arena, driver
from edgedec.devices.gpu.engine import Facts
from edgedec.devices.gpu.engine_cache import (
    EngineCache,
    Key,
    files_of,
    key_of,
    write_engine,
)
from edgedec.devices.tensorrt import device
from edgedec.errors import BundleError, DeviceError
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.manifest import Limits
from edgedec.runtime.schema import decode

LIMITS = Limits(rows=2, source=8, target=8)


def open_encoder(bundle: Path, limits: Limits = LIMITS) -> None:
    device("native", allow_fallback=False).open_resident(
        open_bundle(bundle), "encoder", limits, threads=None
    )


def only(cache: Path, suffix: str) -> Path:
    (path,) = cache.glob(f"*{suffix}")
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def forge(path: Path) -> None:
    """An engine of the same length and another content."""
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".engine", cut),
        (".engine", forge),
        (".engine", Path.unlink),
        (".json", cut),
        (".json", Path.unlink),
        (".json", lambda path: path.write_text("[]")),
    ],
)
def test_what_is_damaged_is_built_again(
    trt: FakeTrt,
    cache: Path,
    small_t5: Path,
    suffix: str,
    damage: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    open_encoder(small_t5)
    damage(only(cache, suffix))
    with caplog.at_level(logging.INFO, "edgedec"):
        open_encoder(small_t5)
    assert trt.built == 2
    # TensorRT is not even asked: it would take what is damaged for a program.
    assert not any("does not load" in record.message for record in caplog.records)
    open_encoder(small_t5)
    assert trt.built == 2


def test_an_engine_that_tensorrt_does_not_load_is_built_again(
    trt: FakeTrt, cache: Path, small_t5: Path
) -> None:
    open_encoder(small_t5)
    # As if a file of another machine had been copied: its facts fit, and TensorRT refuses it.
    facts = decode(Facts, json.loads(only(cache, ".json").read_text()))
    data = b"of another GPU"
    changed = replace(facts, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    write_engine(cache, only(cache, ".json").stem, data, changed)
    open_encoder(small_t5)
    assert (trt.built, trt.loaded) == (2, 2)


def test_other_limits_versions_gpus_and_bundles_have_engines_of_their_own(
    cuda: FakeCuda, trt: FakeTrt, cache: Path, small_t5: Path
) -> None:
    open_encoder(small_t5)
    open_encoder(small_t5, Limits(rows=3, source=8, target=8))
    assert trt.built == 2
    trt.__version__ = "10.17.0"
    open_encoder(small_t5)
    assert trt.built == 3
    cuda.sm = 120
    driver.driver.cache_clear()
    arena.arena.cache_clear()
    open_encoder(small_t5)
    assert trt.built == 4


@pytest.mark.parametrize("name", ["tensorrt", "cuda"])
def test_weights_that_are_not_the_bundles_make_no_engine(
    trt: FakeTrt,
    cache: Path,
    small_t5: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Opening a bundle does not hash large files, and engines serve whoever has the same hashes.
    monkeypatch.setattr("edgedec.runtime.bundle.HASHED_AT_OPEN", 0)
    monkeypatch.setattr("edgedec.devices.cuda.check_installed", lambda: None)
    copy = tmp_path / "copy"
    shutil.copytree(small_t5, copy)
    weights = copy / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    weights.write_bytes(data)
    bundle = open_bundle(copy)
    with pytest.raises(BundleError, match=r"weights\.bin is not the file that was exported"):
        resident_device(name).open_resident(bundle, "encoder", LIMITS, threads=None)
    assert trt.built == 0


def test_a_key_depends_on_all_that_it_says(
    small_t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = tmp_path / "manifest.json"
    kernels.write_text("{}")
    monkeypatch.setattr("edgedec.kernels.ptx.MANIFEST", kernels)
    bundle = open_bundle(small_t5)
    key = key_of(
        bundle, "decoder", LIMITS, device="tensorrt", form="plugin", runtime="11.4", gpu="a"
    )
    assert set(key.files) == {"decoder.onnx", "weights.bin"}
    assert key.files == files_of(bundle, "decoder")
    assert key.kernels is not None
    others = [
        replace(key, device="tensorrt-rtx"),
        replace(key, form="native"),
        replace(key, component="encoder"),
        replace(key, runtime="11.3"),
        replace(key, gpu=None),
        replace(key, edgedec="9"),
        replace(key, limits=replace(LIMITS, target=9)),
        replace(key, files={**key.files, "weights.bin": "0"}),
        replace(key, place="0"),
        replace(key, lowering="0"),
        replace(key, kernels="0"),
    ]
    assert set(Key.__dataclass_fields__) == {
        field
        for other in others
        for field in Key.__dataclass_fields__
        if getattr(other, field) != getattr(key, field)
    }
    assert len({other.stem for other in (key, *others)}) == len(others) + 1


def test_a_folder_that_cannot_be_written_is_one_sentence(small_t5: Path, tmp_path: Path) -> None:
    key = key_of(
        open_bundle(small_t5), "encoder", LIMITS, device="x", form="native", runtime="1", gpu=None
    )
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DeviceError, match="EDGEDEC_CACHE"),
        EngineCache(tmp_path / "file" / "engines").lock(key),
    ):
        pass
