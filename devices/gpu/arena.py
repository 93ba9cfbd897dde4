"""Memory on an NVIDIA GPU, and the one stream that everything of ours runs on."""

from __future__ import annotations

import ctypes
import heapq
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgedec.devices.gpu.driver import Address, Driver, driver
from edgedec.errors import InputError
from edgedec.runtime.resident.arena import Buffer, check_same, check_take

ALIGNED = 256
"""Bytes that pieces of memory are multiples of: TensorRT wants addresses aligned to so many."""
IDLE_SHARE = 4
"""At most the GPU's memory by this lies idle, kept for the next request."""


class Pool:
    """Pieces of memory that are kept when they come back, and given again at their addresses.

    Nothing is freed while a piece comes back: that may be at any moment, and the driver must not be
    asked for it while a graph is being recorded.

    Args:
        allocate: gets memory of the driver.
        free: gives it back to the driver.
        most_idle: bytes that are kept at most.

    Attributes:
        used: bytes that are held by somebody now.
    """

    def __init__(
        self,
        allocate: Callable[[int], Address],
        free: Callable[[Address], None],
        most_idle: int,
    ) -> None:
        self._allocate = allocate
        self._free = free
        self._most_idle = most_idle
        self._idle: dict[int, list[Address]] = {}
        self._lock = threading.RLock()  # pieces come back from any thread
        self._idle_bytes = 0
        self.used = 0

    def get(self, nbytes: int) -> Block:
        """A piece of any content, at least so long.

        Raises:
            InputError: there is not enough memory.
        """
        size = rounded(nbytes)
        with self._lock:
            idle = self._idle.get(size)
            if idle:
                # The lowest, not the last: in whatever order they came back, they go out alike.
                address = heapq.heappop(idle)
                self._idle_bytes -= size
            else:
                if self._idle_bytes > self._most_idle:
                    self.trim()
                address = self._new(size)
            self.used += size
        block = Block(address, size)
        weakref.finalize(block, self._back, address, size).atexit = False
        return block

    def trim(self) -> None:
        """Give all idle pieces back to the driver."""
        with self._lock:
            idle, self._idle, self._idle_bytes = self._idle, {}, 0
        for addresses in idle.values():
            for address in addresses:
                self._free(address)

    def _new(self, size: int) -> Address:
        try:
            return self._allocate(size)
        except InputError:
            if not self._idle_bytes:
                raise
        self.trim()
        return self._allocate(size)

    def _back(self, address: Address, size: int) -> None:
        with self._lock:
            self.used -= size
            self._idle_bytes += size
            heapq.heappush(self._idle.setdefault(size, []), address)


@dataclass(frozen=True, eq=False)
class Block:
    """A piece of memory, which goes back to its pool when nobody holds it.

    Attributes:
        address: where it begins.
        nbytes: how long it is.
    """

    address: Address
    nbytes: int


class CudaArena:
    """Memory of the GPU: pieces that are given back are kept, and given again at their addresses.

    So a second request of the same shapes finds the same addresses, and graphs that were recorded
    for them can be launched again. All work goes on one stream, in order: memory that is given
    again is written after what read it before.

    Args:
        device: the driver.

    Attributes:
        kind: what ONNX Runtime calls such memory.
        device: the driver.
        stream: the stream.
        lock: is held while something is put on the stream and waited for.
    """

    kind = "cuda"

    def __init__(self, device: Driver) -> None:
        self.device = device
        self.stream = device.stream()
        self.lock = threading.RLock()
        most = device.gpu.memory // IDLE_SHARE
        self._memory = Pool(device.allocate, device.free, most)
        self._host = Pool(device.allocate_host, device.free_host, most)
        self._activations: Block | None = None

    @property
    def used(self) -> int:
        """Bytes of the GPU's memory that are held by somebody now."""
        return self._memory.used

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """New memory, all zeros.

        Raises:
            InputError: there is not enough.
        """
        kind = np.dtype(dtype)
        with self.lock:
            block = self.block(prod(shape) * kind.itemsize)
            self.device.clear(block.address, block.nbytes, self.stream)
        return Buffer(shape, kind, block.address, block)

    def block(self, nbytes: int) -> Block:
        """Memory of any content, at least so long.

        Raises:
            InputError: there is not enough.
        """
        with self.lock:
            self.device.enter()
            return self._memory.get(nbytes)

    def pinned(self, nbytes: int) -> tuple[Block, NDArray[np.uint8]]:
        """Memory of the host that the GPU copies by itself, and the same as an array.

        Raises:
            InputError: there is not enough.
        """
        with self.lock:
            self.device.enter()
            block = self._host.get(nbytes)
        memory: Any = (ctypes.c_uint8 * block.nbytes).from_address(block.address)
        return block, np.frombuffer(memory, np.uint8)

    def trim(self) -> None:
        """Give memory that nobody holds back to the driver."""
        with self.lock:
            self.device.enter()
            self._memory.trim()
            self._host.trim()

    def activations(self, nbytes: int) -> Block:
        """Memory for what an engine computes on its way: one for all, as one runs at a time."""
        with self.lock:
            found = self._activations
            if found is None or found.nbytes < nbytes:
                self._activations = None  # what still uses the smaller one keeps it alive
                found = self._activations = self.block(nbytes)
            return found

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy an array of the same shape and type into a buffer."""
        check_same(buffer, array)
        whole = np.ascontiguousarray(array)
        with self.lock:
            self.device.enter()
            self.device.upload(buffer.address, whole.ctypes.data, whole.nbytes, self.stream)
            self.device.synchronize(self.stream)

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """A copy of a buffer on the host."""
        found = np.empty(buffer.shape, buffer.dtype)
        with self.lock:
            self.device.enter()
            self.device.download(found.ctypes.data, buffer.address, found.nbytes, self.stream)
            self.device.synchronize(self.stream)
        return found

    def take(self, target: Buffer, source: Buffer, rows: Sequence[int]) -> None:
        """Let ``target[r]`` be ``source[rows[r]]`` for every r."""
        check_take(target, source, rows)
        width = target.nbytes // len(rows)
        with self.lock:
            self.device.enter()
            for begin, first, count in _runs(rows):
                self.device.copy(
                    target.address + begin * width,
                    source.address + first * width,
                    count * width,
                    self.stream,
                )


def rounded(nbytes: int) -> int:
    """The size that a piece of so many bytes has: one of eight between a power of two and the next.

    Requests of nearly the same length share their sizes, and at most an eighth is wasted.
    """
    step = max(ALIGNED, 1 << max(0, nbytes.bit_length() - 4))
    return max(1, -(-nbytes // step)) * step


def _runs(rows: Sequence[int]) -> list[tuple[int, int, int]]:
    """Rows that follow each other: where they go, the first of them, how many they are."""
    found: list[tuple[int, int, int]] = []
    for place, row in enumerate(rows):
        if found and row == found[-1][1] + found[-1][2]:
            begin, first, count = found[-1]
            found[-1] = (begin, first, count + 1)
        else:
            found.append((place, row, 1))
    return found


@cache
def arena() -> CudaArena:
    """The arena of this process.

    Raises:
        MissingDependencyError: the package that calls the driver is not installed.
        MissingDeviceError: there is no driver, or no GPU.
    """
    return CudaArena(driver())
