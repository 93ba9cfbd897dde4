"""What lowering to resident graphs is told, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

Form = Literal["plugin", "native", "cuda"]
"""How codes are computed with: by our plugin for TensorRT, by standard operators that TensorRT
keeps at 4 bits, or by ONNX Runtime's MatMulNBits where levels are equally spaced (elsewhere its
CUDA provider gets numbers)."""
Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""Input -> its smallest, usual and greatest shape."""
HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
WIDE: Mapping[Form, ir.DataType] = {
    "plugin": ir.DataType.BFLOAT16,
    "native": ir.DataType.BFLOAT16,
    "cuda": FLOAT,
}
"""What computes products whose inputs may exceed what float16 holds."""
DECOMPOSABLE: Mapping[Form, Mapping[str, int]] = {
    "plugin": {"TRT_decomposable": 1},
    "native": {"TRT_decomposable": 1},
    "cuda": {},
}
"""An attribute of Attention that TensorRT's parser reads: without it the builder fails where it has
no kernel for a number of heads (3) or a width of them (4 or 8). Not a word of ONNX's."""
MASKED = -30000.0
"""Added to a score that must not count: float16 holds twice as much."""


@dataclass(frozen=True, eq=False)
class Resident:
    """A component's resident graph.

    Attributes:
        model: the graph (docs/bundle.md has its inputs and outputs).
        profiles: shapes to make an engine for; any run fits one of them.
        expanded: bytes that numbers take in the place of codes, because the form has no codes.
    """

    model: ir.Model
    profiles: tuple[Profile, ...]
    expanded: int
