"""Codes whose levels are equally spaced, for ONNX Runtime's own product with integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.gpu.lowering.coded import UNIT, Coded
from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.expanded import Expanded
from edgedec.devices.gpu.lowering.model import FLOAT
from edgedec.kernels.packing import Packed
from edgedec.quantize.codebook import BLOCK_ROWS

DOMAIN = "com.microsoft"
BLOCKS = (128, 32)
"""Inputs that share a scale in the operator: the first number that is no more than there are."""
EXACT = 1
"""``accuracy_level`` of products in float32: others round their inputs on the CPU."""


class Blocks:
    """Writes MatMulNBits where it can hold a matrix, and numbers elsewhere.

    The operator's integers are ``level / step`` for a step per row, and its scales are these steps:
    they are equal in all blocks of a row. A row's own scale follows in float32, as float16 may be
    too small for it. A matrix whose rows are picked too is numbers, once for both.

    Args:
        editor: of the graph.
        expanded: writes what does not fit.
    """

    def __init__(self, editor: Editor, expanded: Expanded) -> None:
        self._editor = editor
        self._expanded = expanded
        self.rows = expanded.rows

    def product(self, place: ir.Node, matrix: Coded, x: ir.Value, name: str) -> ir.Value:
        """``x [..., K]`` times the matrix's rows: in x's type, or float32."""
        step = None if matrix.tied else steps(matrix.packed)
        if step is None:
            return self._expanded.product(place, matrix, x, name)
        e, packed, dtype = self._editor, matrix.packed, x.dtype
        assert dtype is not None
        bits = 8 if packed.bits == 8 else 4
        size = next((size for size in BLOCKS if size <= packed.columns), BLOCKS[-1])
        stored = integers(packed, step, bits, size)
        scales = np.repeat(step[:, None] / UNIT, stored.shape[1], axis=1).astype(dtype.numpy())
        if packed.row_order is not None:
            natural = np.argsort(packed.row_order)
            stored, scales = stored[natural], scales[natural]
        inputs = [
            x,
            e.constant(stored, f"{matrix.name}.integers"),
            e.constant(scales, f"{matrix.name}.steps.{dtype.name.lower()}"),
        ]
        e.graph.opset_imports[DOMAIN] = 1
        (made,) = e.ops(
            *(place, "MatMulNBits", inputs, name, (dtype,), DOMAIN),
            K=packed.columns,
            N=packed.rows,
            bits=bits,
            block_size=size,
            accuracy_level=EXACT,
        )
        factors = [e.cast(made, FLOAT), e.constant(matrix.scales(), f"{matrix.name}.scales")]
        return e.op(place, "Mul", factors, f"{name}.scaled", FLOAT)


def steps(packed: Packed) -> NDArray[np.int16] | None:
    """The step of every row, in packed order; None where a table has none.

    Every level of a table is a multiple of its step, from -8 to 7 steps (-128 to 127 of 8 bits).
    """
    half = 128 if packed.bits == 8 else 8
    found = []
    for table in packed.levels.astype(np.int16):
        step = int(np.gcd.reduce(table)) or 1
        fitting = [
            s for s in (step, -step) if (table // s >= -half).all() and (table // s < half).all()
        ]
        if not fitting:
            return None
        found.append(fitting[0])
    of_table = np.array(found, np.int16)
    return np.repeat(of_table[packed.group_of_block], BLOCK_ROWS)[: packed.rows]


def integers(packed: Packed, step: NDArray[np.int16], bits: int, size: int) -> NDArray[np.uint8]:
    """What the operator stores, in packed order of rows.

    Args:
        packed: the matrix.
        step: of every row.
        bits: of an integer: 4, two of them in a byte and the first one low, or 8.
        size: of a block; the last one is filled up with zeros.

    Returns:
        uint8 ``[N, blocks, bytes]``; zero is stored as half of what is possible.
    """
    middle = 1 << bits - 1
    signed = packed.integers() // step[:, None]
    padding = -packed.columns % size
    codes = (np.pad(signed, ((0, 0), (0, padding))) + middle).astype(np.uint8)
    if bits == 4:
        codes = codes[:, ::2] | codes[:, 1::2] << np.uint8(4)
    return np.ascontiguousarray(codes.reshape(packed.rows, -1, size * bits // 8))
