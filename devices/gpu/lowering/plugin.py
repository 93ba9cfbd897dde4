"""Codes for our plugin for TensorRT; rows of embeddings stay in standard operators."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.gpu.lowering.coded import Coded
from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.native import Native
from edgedec.kernels.operator import DOMAIN


class Plugin:
    """Writes products as nodes that TensorRT's parser finds our plugin for.

    Args:
        editor: of the graph.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._native = Native(editor)
        self._words: dict[Coded, list[ir.Value]] = {}
        self.rows = self._native.rows

    def product(self, place: ir.Node, matrix: Coded, x: ir.Value, name: str) -> ir.Value:
        """``x [..., K]`` times the matrix's rows, in x's type; float32 where rows mix tables."""
        from edgedec.kernels.words import words_of

        found = words_of(matrix.packed)
        if found is None:  # 16 rows that follow each other share no table
            return self._native.product(place, matrix, x, name)
        e = self._editor
        assert x.dtype is not None
        if matrix not in self._words:
            self._words[matrix] = [
                e.constant(found.words, f"{matrix.name}.words"),
                e.constant(found.groups, f"{matrix.name}.groups"),
                e.constant(found.scales, f"{matrix.name}.scales"),
            ]
        words, groups, scales = self._words[matrix]
        levels = e.constant(found.levels.astype(x.dtype.numpy()), f"{matrix.name}.levels")
        made = e.ops(
            place,
            "CodebookMatMul",
            [x, words, levels, groups, scales],
            name,
            (x.dtype,),
            DOMAIN,
            plugin_namespace=DOMAIN,
        )
        return made[0]
