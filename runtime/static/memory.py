"""Keys and values of the source, as graphs of fixed shapes read them, and as others do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.encoder import Memory
from edgedec.runtime.static.numbers import Numbers

UNSEEN = -1e9
"""What the graphs of docs/bundle.md add to scores of padding."""
PARTS = ("key", "value")


@dataclass(frozen=True, eq=False)
class StaticMemory:
    """What the decoder reads of its source.

    Attributes:
        arrays: ``cross.{i}.key [rows, KVH, DH, S]`` and ``cross.{i}.value [rows, KVH, S, DH]`` of
            every decoder layer.
        numbers: how each of them stores its numbers.
        lengths: int64 ``[rows]``, tokens of each source; what follows is padding.
    """

    arrays: dict[str, NDArray[Any]]
    numbers: Mapping[str, Numbers]
    lengths: NDArray[np.int64]

    @property
    def mean(self) -> None:
        """There are no routers beside graphs of fixed shapes."""
        return

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(array.nbytes for array in self.arrays.values())

    def fork(self, copies: int) -> StaticMemory:
        """Every row ``copies`` times, side by side."""
        return StaticMemory(
            {name: np.repeat(array, copies, axis=0) for name, array in self.arrays.items()},
            self.numbers,
            np.repeat(self.lengths, copies),
        )


def split_heads(rows: NDArray[Any], heads: int, part: str) -> NDArray[Any]:
    """``[B, T, heads * DH]`` as ``[B, heads, DH, T]`` (keys) or ``[B, heads, T, DH]`` (values)."""
    batch, count, width = rows.shape
    split = rows.reshape(batch, count, heads, width // heads)
    return split.transpose(0, 2, 3, 1) if part == "key" else split.transpose(0, 2, 1, 3)


def join_heads(array: NDArray[Any], part: str) -> NDArray[Any]:
    """The inverse of `split_heads`."""
    batch, heads, *_ = array.shape
    split = array.transpose(0, 3, 1, 2) if part == "key" else array.transpose(0, 2, 1, 3)
    return split.reshape(batch, -1, heads * split.shape[-1])


def to_static(
    memory: Memory | StaticMemory, numbers: Mapping[str, Numbers], heads: int, source: int
) -> StaticMemory:
    """What any encoder gave, for a decoder of fixed shapes.

    Args:
        memory: of any encoder.
        numbers: of the decoder's inputs, by name.
        heads: of keys and values.
        source: tokens that the decoder reads; all sources have at most so many.
    """
    if isinstance(memory, StaticMemory):
        if all(memory.numbers[name] == wanted for name, wanted in numbers.items()):
            return memory
        arrays = {
            name: wanted.store(memory.numbers[name].load(memory.arrays[name]))
            for name, wanted in numbers.items()
        }
        return StaticMemory(arrays, numbers, memory.lengths)
    lengths = (memory.arrays["cross.mask"][:, 0, 0] > UNSEEN / 2).sum(axis=1)
    arrays = {}
    for name, wanted in numbers.items():
        given = memory.arrays[name]
        split = split_heads(wanted.store(given), heads, part := name.rpartition(".")[2])
        rows, depth = len(given), given.shape[2] // heads
        shape = (rows, heads, depth, source) if part == "key" else (rows, heads, source, depth)
        arrays[name] = wanted.empty(*shape)
        arrays[name][tuple(map(slice, split.shape))] = split
    return StaticMemory(arrays, numbers, lengths.astype(np.int64))


def to_standard(memory: StaticMemory) -> Memory:
    """What an encoder of fixed shapes gave, for graphs of any length; padding is left out."""
    longest = int(memory.lengths.max())
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, array in memory.arrays.items():
        joined = join_heads(array, name.rpartition(".")[2])[:, :longest]
        arrays[name] = np.ascontiguousarray(memory.numbers[name].load(joined))
    live = np.arange(longest) < memory.lengths[:, None]
    arrays["cross.mask"] = np.where(live, 0, UNSEEN).astype(np.float32)[:, None, None]
    return Memory(arrays)
