"""The driver and the arena: sentences, addresses that come back, and what is on which side."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gpu.fakes.cuda import FakeCuda

from edgedec.devices.gpu.arena import ALIGNED, arena, rounded
from edgedec.devices.gpu.driver import CALLS, POINTER, SCALAR, driver
from edgedec.errors import (
    DeviceError,
    InputError,
    MissingDependencyError,
    MissingDeviceError,
)


def test_the_gpu_is_described(cuda: FakeCuda) -> None:
    gpu = driver().gpu
    assert (gpu.name, gpu.sm, gpu.driver, gpu.memory) == ("Fake GPU", 89, "13.0", 1 << 30)


def test_every_call_is_listed(cuda: FakeCuda) -> None:
    assert set(CALLS) >= cuda.calls
    assert all(hasattr(cuda, name) for name in CALLS)


def test_a_machine_without_a_gpu_is_one_sentence(cuda: FakeCuda) -> None:
    cuda.gpus = 0
    with pytest.raises(MissingDeviceError, match="CUDA_VISIBLE_DEVICES"):
        driver()


def test_a_machine_without_a_driver_is_one_sentence(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(flags: int) -> Any:
        raise RuntimeError("Failure finding libcuda.so")

    monkeypatch.setattr(cuda, "cuInit", missing)
    with pytest.raises(MissingDeviceError, match="no NVIDIA driver"):
        driver()


def test_a_driver_that_does_not_start_is_one_sentence(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "cuInit", lambda _: (cuda.CUresult.CUDA_ERROR_INVALID_VALUE,))
    with pytest.raises(MissingDeviceError, match="nvidia-smi"):
        driver()


def test_a_missing_or_old_package_is_one_sentence(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", type("Old", (), {})())
    with pytest.raises(DeviceError, match="too old"):
        driver()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        driver()


def test_the_real_package_has_what_is_called() -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")
    assert [name for name in CALLS if not hasattr(real, name)] == []


def test_new_memory_is_empty_and_what_is_written_is_read(cuda: FakeCuda) -> None:
    memory = arena()
    buffer = memory.empty((3, 5), np.float16)
    assert buffer.address % ALIGNED == 0
    assert not memory.read(buffer).any()
    values = np.arange(15, dtype=np.float16).reshape(3, 5)
    memory.write(buffer, values)
    assert (memory.read(buffer) == values).all()
    with pytest.raises(ValueError, match="fit"):
        memory.write(buffer, values.astype(np.float32))


def test_memory_that_comes_back_is_given_again_at_its_address_and_is_empty(cuda: FakeCuda) -> None:
    memory = arena()

    def request() -> list[int]:
        held = [memory.empty((100, 7), np.float32) for _ in range(5)]
        for buffer in held:
            memory.write(buffer, np.ones((100, 7), np.float32))
        return [buffer.address for buffer in held]

    first = request()
    gc.collect()
    assert memory.used == 0
    second = request()  # in the order of addresses, as any later one
    assert second == sorted(first)
    gc.collect()
    assert request() == second
    again = memory.empty((100, 7), np.float32)
    assert again.address == min(first)
    assert not memory.read(again).any()


def test_idle_memory_is_given_back_before_memory_is_short(cuda: FakeCuda) -> None:
    cuda.capacity = 1 << 22
    memory = arena()
    half = cuda.capacity // 2 + ALIGNED
    for dtype in (np.uint8, np.int8):
        buffer = memory.empty((half,), dtype)
        size = buffer.nbytes
        del buffer
        assert memory.used == 0
        half += size // 4  # of another size, so that the idle piece does not serve
    with pytest.raises(InputError, match="not enough memory on the GPU"):
        memory.empty((cuda.capacity,), np.float64)


def test_rows_are_taken_in_any_order(cuda: FakeCuda) -> None:
    memory = arena()
    source, target = memory.empty((4, 6), np.int64), memory.empty((5, 6), np.int64)
    values = np.arange(24).reshape(4, 6)
    memory.write(source, values)
    memory.take(target, source, [2, 3, 0, 0, 1])
    del source
    assert (memory.read(target) == values[[2, 3, 0, 0, 1]]).all()
    with pytest.raises(ValueError, match="one piece"):
        memory.take(target, target, range(5))


def test_other_threads_speak_to_the_gpu_too(cuda: FakeCuda) -> None:
    memory, found = arena(), []

    def work() -> None:
        buffer = memory.empty((2,), np.int64)
        memory.write(buffer, np.array([3, 4]))
        found.append(memory.read(buffer).tolist())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[3, 4]]


def test_kernels_are_started_and_timed(cuda: FakeCuda) -> None:
    device, memory = driver(), arena()
    buffer = memory.empty((4,), np.int32)
    told: list[Any] = []
    cuda.kernels["fill"] = lambda *arguments: told.append(arguments)
    function = device.function(".entry fill", "fill")
    begin, end = device.event(), device.event()
    device.record(begin, memory.stream)
    arguments = [(buffer.address, POINTER), (4, SCALAR)]
    device.start(function, (2, 1, 1), 128, 16, arguments, memory.stream)
    device.record(end, memory.stream)
    assert told == []  # nothing has waited for the stream
    assert device.elapsed(begin, end) >= 0
    assert told == [((2, 1, 1), 128, 16, buffer.address, 4)]


@given(st.integers(0, 1 << 40))
def test_sizes_waste_little_and_are_few(nbytes: int) -> None:
    size = rounded(nbytes)
    assert size % ALIGNED == 0
    assert nbytes <= size <= max(2 * ALIGNED, nbytes + nbytes // 8 + ALIGNED)
    assert rounded(size) == size
