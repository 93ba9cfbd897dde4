"""Keys and values of the source in a device's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgedec.runtime.encoder import Memory
from edgedec.runtime.manifest import Interface
from edgedec.runtime.resident.arena import Arena, Buffer

PIECE = 32
"""Sources are padded to multiples of so many tokens, so that few shapes serve all."""
UNSEEN = -1e9
"""What is added to the scores of padding."""


@dataclass(frozen=True, eq=False)
class ResidentMemory:
    """What the decoder reads of its source.

    Attributes:
        arena: where the buffers are.
        arrays: ``cross.{i}.key`` and ``cross.{i}.value`` ``[rows, S, width]`` of every decoder
            layer, and ``cross.mask`` float32 ``[rows, 1, 1, S]``.
        mean: float32 ``[rows, d_model]`` for routers, in the host's memory; None without them.
    """

    arena: Arena
    arrays: Mapping[str, Buffer]
    mean: NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(buffer.nbytes for buffer in self.arrays.values())

    @property
    def source(self) -> int:
        """S."""
        return self.arrays["cross.mask"].shape[3]

    def fill(self, memory: Memory | ResidentMemory) -> None:
        """Take what an encoder gave, of the same rows and at most as long."""
        for name, buffer in self.arrays.items():
            if isinstance(memory, ResidentMemory) and _fits(memory, name, self.arena, buffer):
                self.arena.take(buffer, memory.arrays[name], range(buffer.shape[0]))
                continue
            given = (
                memory.arena.read(memory.arrays[name])
                if isinstance(memory, ResidentMemory)
                else memory.arrays[name]
            )
            self.arena.write(buffer, _widened(name, given, buffer))

    def repeat(self, memory: ResidentMemory, copies: int) -> None:
        """Take every row of another one ``copies`` times, side by side."""
        for name, buffer in self.arrays.items():
            rows = [row for row in range(memory.arrays[name].shape[0]) for _ in range(copies)]
            self.arena.take(buffer, memory.arrays[name], rows)


def empty_memory(
    arena: Arena, io: Interface, rows: int, source: int, dtype: DTypeLike
) -> ResidentMemory:
    """Room for ``source`` tokens of every row; raises InputError where memory is short."""
    arrays = {
        f"cross.{layer}.{part}": arena.empty((rows, source, io.kv_width), dtype)
        for layer in range(io.decoder_layers)
        for part in ("key", "value")
    }
    arrays["cross.mask"] = arena.empty((rows, 1, 1, source), np.float32)
    return ResidentMemory(arena, arrays)


def to_host(memory: ResidentMemory) -> Memory:
    """The same in the host's memory, in float32."""
    arrays = {
        name: memory.arena.read(buffer).astype(np.float32, copy=False)
        for name, buffer in memory.arrays.items()
    }
    return Memory(arrays, memory.mean)


def padded_length(longest: int, most: int | None) -> int:
    """The length that sources are padded to: ``longest`` or more, and at most ``most``."""
    length = -(-longest // PIECE) * PIECE
    return length if most is None else max(min(length, most), longest)


def _fits(memory: ResidentMemory, name: str, arena: Arena, buffer: Buffer) -> bool:
    """Whether a buffer of another memory can be copied as it is."""
    other = memory.arrays[name]
    return memory.arena is arena and other.shape == buffer.shape and other.dtype == buffer.dtype


def _widened(name: str, given: NDArray[np.float32], buffer: Buffer) -> NDArray[np.float32]:
    """An array as a buffer has it: padded along S, in its type, and finite there."""
    wide = np.full(buffer.shape, UNSEEN if name == "cross.mask" else 0, np.float32)
    wide[tuple(map(slice, given.shape))] = given
    most = np.finfo(buffer.dtype).max
    return np.clip(wide, -most, most).astype(buffer.dtype)
