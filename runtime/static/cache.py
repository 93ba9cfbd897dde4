"""Caches of self-attention whose size is fixed: every row has memory of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.static.memory import PARTS, split_heads
from edgedec.runtime.static.numbers import Numbers


class StaticCache:
    """Keys and values of every decoder layer, written here and read by the graphs.

    What lies at a row's length and beyond is masked by the bias that the graphs are fed.

    Args:
        numbers: how each input ``past.{i}.self.{key,value}`` stores its numbers.
        rows: sequences decoded side by side.
        heads: of keys and values.
        depth: channels of a head.
        past: positions that a row holds.

    Attributes:
        lengths: int64 ``[rows]``: positions of each row; may exceed ``past`` by one, as nothing
            follows the last position that would read it.
        arrays: by input, ``[rows, heads, depth, past]`` for keys, ``[rows, heads, past, depth]``
            for values.
    """

    def __init__(
        self, numbers: Mapping[str, Numbers], rows: int, heads: int, depth: int, past: int
    ) -> None:
        self.past = past
        self.lengths: NDArray[np.int64] = np.zeros(rows, np.int64)
        shapes = {"key": (rows, heads, depth, past), "value": (rows, heads, past, depth)}
        self.arrays: dict[str, NDArray[Any]] = {
            name: kind.empty(*shapes[name.rpartition(".")[2]]) for name, kind in numbers.items()
        }
        self._heads = heads
        self._layers = len(numbers) // len(PARTS)

    @property
    def rows(self) -> int:
        """Sequences decoded side by side."""
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(array.nbytes for array in self.arrays.values())

    def write(self, row: int, new: Mapping[str, NDArray[Any]], count: int) -> None:
        """Write positions of a row behind those that it has; `lengths` is the caller's to raise.

        Args:
            row: which one.
            new: ``new.{i}.self.{key,value} [1, C, width]``, as the graphs give them,
            count: of which so many are kept, as far as there is room.
        """
        begin = int(self.lengths[row])
        end = min(begin + count, self.past)
        for layer in range(self._layers if end > begin else 0):
            for part in PARTS:
                rows = new[f"new.{layer}.self.{part}"][:, : end - begin]
                split = split_heads(rows, self._heads, part)[0]
                here = self.arrays[f"past.{layer}.self.{part}"][row]
                if part == "key":
                    here[:, :, begin:end] = split
                else:
                    here[:, begin:end] = split

    def crop(self, length: int) -> None:
        """Forget every position from ``length`` on."""
        np.minimum(self.lengths, length, out=self.lengths)

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Let row r continue row ``parents[r]``; memory stays where it is."""
        if np.array_equal(parents, np.arange(self.rows)):
            return
        live = min(int(self.lengths.max()), self.past)
        for name, array in self.arrays.items():
            part = array[..., :live] if name.endswith("key") else array[:, :, :live]
            part[:] = part[parents]
        self.lengths[:] = self.lengths[parents]

    def fork(self, copies: int) -> None:
        """Repeat every row ``copies`` times, side by side."""
        self.arrays = {
            name: np.repeat(array, copies, axis=0) for name, array in self.arrays.items()
        }
        self.lengths = np.repeat(self.lengths, copies)
