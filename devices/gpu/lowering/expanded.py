"""Codes as the numbers that they stand for."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.gpu.lowering.coded import Coded
from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.model import HALF

INT64 = ir.DataType.INT64


class Expanded:
    """Writes products and rows of matrices that were codes.

    Args:
        editor: of the graph.

    Attributes:
        size: bytes of these matrices.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._made: dict[tuple[Coded, ir.DataType, bool], ir.Value] = {}
        self.size = 0

    def product(self, place: ir.Node, matrix: Coded, x: ir.Value, name: str) -> ir.Value:
        """``x [..., K]`` times the matrix's rows, in x's type."""
        e, dtype = self._editor, x.dtype
        assert dtype is not None
        if not matrix.tied:
            weight = self._numbers(matrix, dtype, turned=True)
            return e.op(place, "MatMul", [x, weight], name, dtype)
        # Gemm reads rows as an embedding has them, so that they are stored once.
        columns, rows = matrix.packed.columns, matrix.packed.rows
        flat = e.op(place, "Reshape", [x, e.shape(-1, columns)], f"{name}.flat", dtype)
        inputs = [flat, self._numbers(matrix, dtype, turned=False)]
        made = e.op(place, "Gemm", inputs, name, dtype, transB=1)
        lead = e.op(place, "Shape", [x], f"{name}.lead", INT64, end=-1)
        shape = e.op(place, "Concat", [lead, e.shape(rows)], f"{name}.shape", INT64, axis=0)
        return e.op(place, "Reshape", [made, shape], f"{name}.whole", dtype)

    def rows(self, place: ir.Node, matrix: Coded, ids: ir.Value, name: str) -> ir.Value:
        """Rows of the matrix, float16 ``[..., K]``."""
        weight = self._numbers(matrix, HALF, turned=False)
        return self._editor.op(place, "Gather", [weight, ids], f"{name}.rows", HALF, axis=0)

    def _numbers(self, matrix: Coded, dtype: ir.DataType, *, turned: bool) -> ir.Value:
        key = matrix, dtype, turned
        if key not in self._made:
            tensor = matrix.numbers(dtype, turned=turned)
            self._made[key] = self._editor.constant(tensor, str(tensor.name))
            self.size += tensor.nbytes
        return self._made[key]
