"""What tests of GPUs share: a driver and TensorRT that are not there."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.export.tiny import write
from tests.gpu.fakes.cuda import FakeCuda
from tests.gpu.fakes.trt import FakeTrt

from edgedec.builtin import builtin_checkpoint
from edgedec.devices.gpu import arena, driver
from edgedec.export import export_checkpoint


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A GPU; the test fails if anything was done that a real one would not forgive."""
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake)
    back = arena.Pool._back

    def spoil(self: arena.Pool, address: int, size: int) -> None:
        """What was given back has another content as soon as the stream gets here."""
        back(self, address, size)
        for handle in fake._streams:
            if fake._streams[handle].recording is None and address in fake.device.live:
                fake.put(handle, lambda: ctypes.memset(address, 0xDD, size))  # type: ignore[arg-type]

    monkeypatch.setattr(arena.Pool, "_back", spoil)
    driver.driver.cache_clear()
    arena.arena.cache_clear()
    yield fake
    driver.driver.cache_clear()
    arena.arena.cache_clear()
    assert not fake.violations


@pytest.fixture
def trt(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTrt:
    """TensorRT; our plugin registers with it at once."""
    fake = FakeTrt(cuda, "tensorrt", "10.16.1.11")
    monkeypatch.setitem(sys.modules, "tensorrt", fake)

    def register(module: FakeTrt) -> None:
        module.registered = True

    monkeypatch.setattr("edgedec.kernels.tensorrt.plugin.register", register)
    return fake


@pytest.fixture
def rtx(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTrt:
    """TensorRT-RTX."""
    fake = FakeTrt(cuda, "tensorrt_rtx", "1.7.1.116")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    return fake


@pytest.fixture(scope="session")
def coded_g2p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of g2p with codes of 4 bits; not to be written to."""
    checkpoint = builtin_checkpoint("g2p")
    assert checkpoint is not None
    out = tmp_path_factory.mktemp("coded") / "g2p"
    return export_checkpoint(
        checkpoint, out, quant="cb4", method="kmeans", compute="fp32", verify=False
    )


@pytest.fixture(scope="session")
def deep_g2p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of g2p that may leave after every layer; not to be written to."""
    checkpoint = builtin_checkpoint("g2p")
    assert checkpoint is not None
    out = tmp_path_factory.mktemp("deep") / "g2p"
    return export_checkpoint(checkpoint, out, depth=["early-exit"], verify=False)


@pytest.fixture(scope="session")
def small_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a random T5 of a few kilobytes with codes of 4 bits; not to be written to."""
    root = tmp_path_factory.mktemp("small")
    checkpoint = write(root / "checkpoint", "t5")
    return export_checkpoint(
        checkpoint, root / "t5", quant="cb4", method="kmeans", compute="fp32", verify=False
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for this test alone; where engines will be in it."""
    monkeypatch.setenv("EDGEDEC_CACHE", str(tmp_path))
    return tmp_path / "engines"
