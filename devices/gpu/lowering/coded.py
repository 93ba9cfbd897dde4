"""Matrices of codes, and what graphs in any form store of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.kernels.packing import Packed, unpack
from edgedec.quantize.codebook import BLOCK_ROWS

UNIT = 128
"""Levels are divided by this and rows' scales multiplied: sums of products with whole levels may be
beyond float16. It is a power of 2, so nothing is rounded."""
_MIDDLE = {ir.DataType.INT4: 8, ir.DataType.INT8: 128}


@dataclass(frozen=True, eq=False)
class Coded:
    """A matrix of codes ``[N, K]``.

    Attributes:
        name: of the node that read it first.
        packed: as the bundle has it.
        tied: whether rows of it are picked, and it is a factor too.
    """

    name: str
    packed: Packed
    tied: bool

    @property
    def whole(self) -> bool:
        """Whether a code is a level: those of 8 bits need no table."""
        return self.packed.bits == 8

    def scales(self) -> NDArray[np.float32]:
        """What rows are multiplied by where levels are divided by `UNIT`; float32 ``[N]``."""
        scales: NDArray[np.float32] = self._natural(self.packed.row_scale)
        return scales * np.float32(UNIT)

    def levels(self, dtype: ir.DataType) -> NDArray[Any]:
        """All tables, one behind the other, divided by `UNIT`."""
        levels = self.packed.levels.ravel().astype(np.float32) / UNIT
        return levels.astype(dtype.numpy())

    def places(self) -> NDArray[np.int32]:
        """What leads from stored codes to entries of `levels`: one number, or one per row."""
        middle = np.array(_MIDDLE[ir.DataType.INT4], np.int32)
        if len(self.packed.levels) == 1:
            return middle
        groups = np.repeat(self.packed.group_of_block, BLOCK_ROWS)[: self.packed.rows]
        first: NDArray[np.int32] = self._natural(groups.astype(np.int32) << self.packed.bits)
        return first[:, None] + middle

    def codes(self) -> ir.LazyTensor:
        """The codes as integers around zero: INT4 ``[N, K]``, or INT8 for 8 bits.

        TensorRT keeps these as they are; of unsigned bytes it makes 32 bits each.
        """
        dtype = ir.DataType.INT8 if self.whole else ir.DataType.INT4
        name = f"{self.name}.codes.{dtype.name.lower()}"
        shape = self.packed.rows, self.packed.columns
        return _lazy(partial(self._signed, dtype), dtype, shape, name)

    def numbers(self, dtype: ir.DataType, *, turned: bool) -> ir.LazyTensor:
        """The matrix that the codes stand for; turned, ``[K, N]``."""
        shape = self.packed.rows, self.packed.columns
        name = f"{self.name}.{'columns' if turned else 'rows'}.{dtype.name.lower()}"
        make = partial(self._numbers, dtype, turned=turned)
        return _lazy(make, dtype, shape[::-1] if turned else shape, name)

    def _signed(self, dtype: ir.DataType) -> NDArray[Any]:
        codes = self._natural(unpack(self.packed)).astype(np.int16) - _MIDDLE[dtype]
        return codes.astype(dtype.numpy())

    def _numbers(self, dtype: ir.DataType, *, turned: bool) -> NDArray[Any]:
        matrix = self.packed.dequantize().astype(dtype.numpy())
        return np.ascontiguousarray(matrix.T) if turned else matrix

    def _natural(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rows in packed order, in the matrix's own."""
        if self.packed.row_order is None:
            return values
        found = np.empty_like(values)
        found[self.packed.row_order] = values
        return found


def _lazy(make: Any, dtype: ir.DataType, shape: tuple[int, int], name: str) -> ir.LazyTensor:
    return ir.LazyTensor(
        lambda: ir.Tensor(make(), dtype=dtype, name=name),
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )
