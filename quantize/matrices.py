"""The weight matrices of floating-point graphs: what there is to quantize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.quantize.codebook import CodebookTensor

Role = Literal["linear", "embedding", "head"]
"""What a matrix is for: some formats keep the ends of a model finer than its middle."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A constant matrix ``[rows, columns]`` of a graph; a product sums over columns.

    Attributes:
        stored: the initializer that holds it.
        transposed: whether it is stored as ``[columns, rows]``.
        role: what it is for.
    """

    stored: ir.Value
    transposed: bool
    role: Role

    @property
    def name(self) -> str:
        """The initializer's name, which is the module's path and ``.weight``."""
        return str(self.stored.name)

    @property
    def rows(self) -> int:
        """Outputs of a product, or entries of a table."""
        return self._shape[1 if self.transposed else 0]

    @property
    def columns(self) -> int:
        """Inputs of a product, or the width of an entry."""
        return self._shape[0 if self.transposed else 1]

    def read(self) -> NDArray[np.float32]:
        """The values, float32 ``[rows, columns]``; they are read from the checkpoint here."""
        values = self.as_stored()
        return np.ascontiguousarray(values.T) if self.transposed else values

    def as_stored(self) -> NDArray[np.float32]:
        """The values in the shape in which they are stored.

        A copy: pages of a mapped file that nothing refers to any more leave the memory.
        """
        tensor = self.stored.const_value
        assert tensor is not None
        values = np.array(tensor.numpy(), np.float32)
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
        return values

    @property
    def _shape(self) -> tuple[int, ...]:
        assert self.stored.const_value is not None
        return tuple(self.stored.const_value.shape.numpy())


Quantize = Callable[[Matrix], CodebookTensor]
"""Turns a matrix into codes; equal matrices of an embedding and a head give the same object."""
