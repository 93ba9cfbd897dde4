"""How graphs of fixed shapes store the numbers of keys and values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import BundleError
from edgedec.runtime.manifest import Grid
from edgedec.runtime.session import Port

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
INTEGERS = {
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
}
"""ONNX Runtime's word for the type of a port -> NumPy's."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of a port.

    Attributes:
        dtype: float32 or float16, or integers of 8 or 16 bits, with a
        grid: that says what they stand for.
    """

    dtype: np.dtype[Any]
    grid: Grid | None = None

    def empty(self, *shape: int) -> NDArray[Any]:
        """Memory that stands for zeros."""
        return np.full(shape, 0 if self.grid is None else self.grid.zero_point, self.dtype)

    def store(self, values: NDArray[Any]) -> NDArray[Any]:
        """Float32 values as these numbers; what is out of their range becomes the nearest.

        Integers are as of QuantizeLinear (ONNX opset 23): rounded half to even, saturated.
        """
        if self.grid is not None:
            limits = np.iinfo(self.dtype)
            # In float32, as ONNX Runtime's kernel divides.
            steps = np.rint(values / np.float32(self.grid.scale)) + self.grid.zero_point
            whole: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(self.dtype)
            return whole
        if self.dtype == np.float16:
            largest = np.finfo(np.float16).max
            halves: NDArray[Any] = np.clip(values, -largest, largest).astype(np.float16)
            return halves
        return values.astype(np.float32)

    def load(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """What these numbers stand for, as float32."""
        if self.grid is None:
            return stored.astype(np.float32)
        steps = stored.astype(np.int32) - self.grid.zero_point
        return steps.astype(np.float32) * np.float32(self.grid.scale)


def numbers_of(graph: str, name: str, port: Port, grids: Mapping[str, Grid]) -> Numbers:
    """How a port stores its numbers.

    Args:
        graph: its file, for messages.
        name: of the port.
        port: as the graph declares it.
        grids: of the manifest.

    Raises:
        BundleError: a type that edgedec does not know, or that contradicts the manifest.
    """
    # A cache's new rows are stored as the cache.
    grid = grids.get(name.replace("new.", "past.", 1) if name.startswith("new.") else name)
    if grid is None and port.type in FLOATS:
        return Numbers(np.dtype(FLOATS[port.type]))
    if grid is not None and port.type in INTEGERS:
        numbers = Numbers(np.dtype(INTEGERS[port.type]), grid)
        limits = np.iinfo(numbers.dtype)
        if limits.min <= grid.zero_point <= limits.max:
            return numbers
    kind = "no grid" if grid is None else f"a grid with zero point {grid.zero_point}"
    raise BundleError(
        f"{name!r} of {graph} is {port.type} and the manifest has {kind} for it: it does not "
        "belong to this bundle's manifest; export the bundle again."
    )
