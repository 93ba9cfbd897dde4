"""Codes in standard operators: small integers, and a table that a graph looks them up in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgedec.devices.gpu.lowering.coded import UNIT, Coded
from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.model import FLOAT, HALF

INT32 = ir.DataType.INT32


class Native:
    """Writes products and rows of coded matrices, which TensorRT keeps at 4 bits (8 of 8).

    Args:
        editor: of the graph.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def product(self, place: ir.Node, matrix: Coded, x: ir.Value, name: str) -> ir.Value:
        """``x [..., K]`` in 16 bits times the matrix's rows: float32 ``[..., N]``."""
        e = self._editor
        assert x.dtype is not None
        made = e.op(place, "MatMul", [x, self._turned(place, matrix, x.dtype)], name, x.dtype)
        whole = e.cast(made, FLOAT)
        return e.op(place, "Mul", [whole, self._scales(matrix)], f"{name}.scaled", FLOAT)

    def rows(self, place: ir.Node, matrix: Coded, ids: ir.Value, name: str) -> ir.Value:
        """Rows of the matrix: float32 ``[..., K]`` for ids ``[...]``."""
        e = self._editor
        # Rows of codes that are numbers already: the parser refuses to pick rows of integers.
        values = self._dequantized(place, matrix, HALF)
        picked = e.op(place, "Gather", [values, ids], f"{name}.codes", HALF, axis=0)
        if not matrix.whole:
            start = self._places(matrix)
            if start.shape is not None and len(start.shape) > 0:
                start = e.op(place, "Gather", [start, ids], f"{name}.places", INT32, axis=0)
            picked = self._look_up(place, matrix, picked, start, name)
        scales = e.op(place, "Gather", [self._scales(matrix), ids], f"{name}.scale", FLOAT, axis=0)
        scales = e.op(place, "Unsqueeze", [scales, e.shape(-1)], f"{name}.factor", FLOAT)
        whole = e.cast(picked, FLOAT)
        return e.op(place, "Mul", [whole, scales], f"{name}.rows", FLOAT)

    def _turned(self, place: ir.Node, matrix: Coded, dtype: ir.DataType) -> ir.Value:
        """The matrix as a second factor ``[K, N]``, without its rows' scales."""

        def make() -> ir.Value:
            e, name = self._editor, matrix.name
            values = self._dequantized(place, matrix, dtype)
            if not matrix.whole:
                values = self._look_up(place, matrix, values, self._places(matrix), name)
            return e.op(place, "Transpose", [values], f"{name}.turned", dtype, perm=[1, 0])

        return self._once(("turned", matrix, dtype), make)

    def _dequantized(self, place: ir.Node, matrix: Coded, dtype: ir.DataType) -> ir.Value:
        """Stored codes as numbers; codes of 8 bits as levels, divided by `UNIT`."""

        def make() -> ir.Value:
            e = self._editor
            one = np.array(1 / UNIT if matrix.whole else 1, dtype.numpy())
            inputs = [self._codes(matrix), e.constant(one, f"{matrix.name}.unit")]
            return e.op(place, "DequantizeLinear", inputs, f"{matrix.name}.numbers", dtype)

        return self._once(("numbers", matrix, dtype), make)

    def _look_up(
        self, place: ir.Node, matrix: Coded, codes: ir.Value, start: ir.Value, name: str
    ) -> ir.Value:
        e, dtype = self._editor, codes.dtype
        assert dtype is not None
        index = e.op(place, "Cast", [codes], f"{name}.code", INT32, to=int(INT32))
        index = e.op(place, "Add", [index, start], f"{name}.entry", INT32)
        levels = e.constant(matrix.levels(dtype), f"{matrix.name}.levels")
        return e.op(place, "Gather", [levels, index], f"{name}.level", dtype, axis=0)

    def _codes(self, matrix: Coded) -> ir.Value:
        def make() -> ir.Value:
            tensor = matrix.codes()
            return self._editor.constant(tensor, str(tensor.name))

        return self._once(("codes", matrix), make)

    def _places(self, matrix: Coded) -> ir.Value:
        return self._editor.constant(matrix.places(), f"{matrix.name}.places")

    def _scales(self, matrix: Coded) -> ir.Value:
        return self._editor.constant(matrix.scales(), f"{matrix.name}.scales")

    def _once(self, key: tuple[object, ...], make: Callable[[], ir.Value]) -> ir.Value:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
