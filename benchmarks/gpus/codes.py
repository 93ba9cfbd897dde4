"""Our products of codes: the PTX that is shipped, launched as TensorRT launches a plugin's.

A kernel's arguments are the inputs, then the sizes, then the output; grid, threads and shared
memory are those that `edgedec.kernels.ptx` states, which the plugin gives to TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.devices.gpu.arena import CudaArena
from edgedec.devices.gpu.driver import POINTER, SCALAR
from edgedec.kernels.codebook_matmul import to_bfloat16
from edgedec.kernels.packing import INT8_LEVELS
from edgedec.kernels.ptx import Dtype, Kernel, Tactic, kernel
from edgedec.kernels.words import Words, pack_words, reference
from edgedec.quantize.codebook import BLOCK_ROWS, LARGEST_LEVEL
from edgedec.runtime.resident.arena import Buffer
from gpus.lanes import copies
from gpus.points import Place, Point, inputs, relative_error

Half = NDArray[np.uint16]
"""float16 or bfloat16, as its bits."""
Floats = NDArray[np.float32]
UNWRITTEN = 0x7FFF
"""Not a number, in both types."""
ALIGNED = 256
"""Bytes at multiples of which weights begin, as TensorRT's do."""


@dataclass(frozen=True)
class Form:
    """Which kernel, and how many tables its weights have; with 8 bits it is one."""

    tactic: Tactic
    bits: int
    dtype: Dtype = "fp16"
    tables: int = 1


class DriverLane:
    """The arena's stream."""

    def __init__(self, arena: CudaArena) -> None:
        self._arena = arena
        self._graph: Any = None

    def record(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of the driver's, until the next."""
        device, stream = self._arena.device, self._arena.stream
        if self._graph is not None:
            device.forget(self._graph)
        device.begin_capture(stream)
        enqueue()
        self._graph = device.end_capture(stream)
        return partial(device.launch, self._graph, stream)

    def finish(self) -> None:
        """Wait for the GPU."""
        self._arena.device.synchronize(self._arena.stream)


class CodesProduct:
    """A product with weights of codes.

    Args:
        point: its sizes.
        place: how many bytes of weights take turns.
        form: of its weights and its kernel.
        arena: memory of the GPU, and the stream.
    """

    def __init__(self, point: Point, place: Place, form: Form, arena: CudaArena) -> None:
        weight, expected = _weight(point.all_rows, form)
        shipped = kernel(form.tactic, form.bits, form.dtype)
        self._arena, self._dtype, self._expected = arena, form.dtype, expected[: point.rows]
        self._function = _function(arena, shipped)
        x = stored(inputs(point).astype(np.float32), form.dtype)
        levels = stored(weight.levels.astype(np.float32), form.dtype)
        self._held = [_upload(arena, a) for a in (x, levels, weight.groups, weight.scales)]
        unwritten = np.full((point.rows, point.n), UNWRITTEN, np.uint16)
        self._y = _upload(arena, unwritten)
        self.copies = copies(place.rotated, weight.words.nbytes)
        self._words = _rotated(arena, weight.words, self.copies)
        self.nbytes = weight.words.nbytes + sum(b.nbytes for b in (*self._held, self._y))
        self._block = shipped.threads, shipped.shared
        self._grid, self._sizes = shipped.grid(point.rows, point.n), (point.rows, point.n, point.k)

    def launch(self, copy: int) -> None:
        """Enqueue it."""
        x, levels, groups, scales = self._held
        arguments = [(b.address, POINTER) for b in (x, self._words[copy], levels, groups, scales)]
        arguments += [(size, SCALAR) for size in self._sizes]
        arguments.append((self._y.address, POINTER))
        self._arena.device.start(
            self._function, self._grid, *self._block, arguments, self._arena.stream
        )

    def error(self) -> float:
        """Of the last product."""
        return relative_error(floats(self._arena.read(self._y), self._dtype), self._expected)


def stored(values: Floats, dtype: str) -> Half:
    """Bits of values, rounded to float16 or bfloat16."""
    if dtype == "fp16":
        return values.astype(np.float16).view(np.uint16)
    return (to_bfloat16(values).view(np.uint32) >> 16).astype(np.uint16)


def floats(bits: Half, dtype: str) -> Floats:
    """Values of such bits."""
    if dtype == "fp16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


@lru_cache(maxsize=1)
def _weight(point: Point, form: Form) -> tuple[Words, Floats]:
    """A random weight whose products are about 1, and the product with it."""
    rng = np.random.default_rng(point.seed)
    codes = rng.integers(0, 1 << form.bits, (point.n, point.k), np.uint8)
    levels = INT8_LEVELS[None]
    if form.bits < 8:
        tables = rng.integers(-LARGEST_LEVEL, LARGEST_LEVEL + 1, (form.tables, 1 << form.bits))
        levels = np.sort(tables.astype(np.int8), axis=1)
    weight = Words(
        words=pack_words(codes, form.bits),
        levels=levels,
        groups=rng.integers(0, len(levels), -(-point.n // BLOCK_ROWS), np.int32),
        scales=(rng.uniform(0.5, 1.5, point.n) / (64 * point.k**0.5)).astype(np.float32),
    )
    x = floats(stored(inputs(point).astype(np.float32), form.dtype), form.dtype)
    return weight, reference(x, weight.words, weight.levels, weight.groups, weight.scales)


@cache
def _function(arena: CudaArena, shipped: Kernel) -> Any:
    return arena.device.function(shipped.ptx(), shipped.name)


def _upload(arena: CudaArena, array: NDArray[Any]) -> Buffer:
    buffer = arena.empty(array.shape, array.dtype)
    arena.write(buffer, array)
    return buffer


def _rotated(arena: CudaArena, words: NDArray[np.int32], count: int) -> list[Buffer]:
    """So many copies of a weight, in one piece of memory."""
    stride = -(-words.nbytes // ALIGNED) * ALIGNED
    block = arena.block(count * stride)
    found = [
        Buffer(words.shape, words.dtype, block.address + i * stride, block) for i in range(count)
    ]
    arena.write(found[0], words)
    for copy in found[1:]:
        arena.device.copy(copy.address, block.address, words.nbytes, arena.stream)
    return found
