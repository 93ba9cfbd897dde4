"""Memory of a device, by address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgedec.runtime.memory import require


@dataclass(frozen=True)
class Buffer:
    """An array in a device's memory: C-contiguous.

    Attributes:
        shape: of the array.
        dtype: of its numbers.
        address: of the first of them, as the device counts.
        owner: what keeps the memory; it is given back when nobody refers to this any more.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    owner: object = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return prod(self.shape) * self.dtype.itemsize

    def rows(self, first: int, count: int) -> Buffer:
        """A part of the first axis: the same memory."""
        if not 0 <= first <= first + count <= self.shape[0]:
            raise ValueError(f"{self.shape[0]} rows have no rows {first} to {first + count}")
        row = self.nbytes // max(self.shape[0], 1)
        shape = (count, *self.shape[1:])
        return replace(self, shape=shape, address=self.address + first * row)


class Arena(Protocol):
    """Gives memory of one device, and moves arrays in, out and around. One for a process.

    Everything happens in the order of the calls, runs of the device's sessions included.
    """

    @property
    def kind(self) -> str:
        """ONNX Runtime's word for the memory: ``cpu`` or ``cuda``."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Memory full of zeros.

        Raises:
            InputError: the device has not enough.
        """

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy an array of the same shape and type into a buffer."""

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """A copy of a buffer, in an array of its own."""

    def take(self, target: Buffer, source: Buffer, rows: Sequence[int]) -> None:
        """Let ``target[r]`` be ``source[rows[r]]`` for every r; the two share no memory."""


class HostArena:
    """An `Arena` in the memory that NumPy uses."""

    kind = "cpu"

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Memory full of zeros; raises InputError where there is not enough."""
        kind = np.dtype(dtype)
        size = prod(shape) * kind.itemsize
        require(size, f"an array of {size / 1e9:.1f} GB", "take fewer inputs at a time")
        array = np.zeros(shape, kind)
        return Buffer(tuple(shape), kind, array.ctypes.data, array)

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy an array of the same shape and type into a buffer."""
        check_same(buffer, array)
        _array(buffer)[...] = array

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """A copy of a buffer."""
        return _array(buffer).copy()

    def take(self, target: Buffer, source: Buffer, rows: Sequence[int]) -> None:
        """Let ``target[r]`` be ``source[rows[r]]`` for every r."""
        check_take(target, source, rows)
        _array(target)[...] = _array(source)[list(rows)]


def check_same(buffer: Buffer, array: NDArray[Any]) -> None:
    """Raise ValueError unless both have the same shape and type."""
    if array.shape != buffer.shape or array.dtype != buffer.dtype:
        raise ValueError(
            f"{array.dtype} {array.shape} does not fit a buffer of {buffer.dtype} {buffer.shape}"
        )


def check_take(target: Buffer, source: Buffer, rows: Sequence[int]) -> None:
    """Raise ValueError where `Arena.take` cannot take these rows."""
    if (
        target.shape != (len(rows), *source.shape[1:])
        or target.dtype != source.dtype
        or not all(0 <= row < source.shape[0] for row in rows)
    ):
        raise ValueError(f"{target.shape} cannot be rows {list(rows)} of {source.shape}")
    if target.address < source.address + source.nbytes and (
        source.address < target.address + target.nbytes
    ):
        raise ValueError("rows cannot be taken within one piece of memory")


def _array(buffer: Buffer) -> NDArray[Any]:
    """The buffer's memory as an array."""
    whole = buffer.owner
    assert isinstance(whole, np.ndarray)
    begin = buffer.address - whole.ctypes.data
    part: NDArray[Any] = whole.reshape(-1).view(np.uint8)[begin : begin + buffer.nbytes]
    return part.view(buffer.dtype).reshape(buffer.shape)
