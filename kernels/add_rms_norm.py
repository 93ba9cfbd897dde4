"""AddRMSNorm: a residual addition and the norm of its sum, with which pre-norm blocks start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.body import build
from edgedec.kernels.operator import Attribute, Operator, Tensor

if TYPE_CHECKING:
    import onnx

OP = Operator(
    name="AddRMSNorm",
    inputs=(
        Tensor("X", "float32", ("...", "N")),
        Tensor("delta", "float32", ("...", "N")),
        Tensor("scale", "float32", ("N",)),
    ),
    outputs=(Tensor("Y", "float32", ("...", "N")), Tensor("sum", "float32", ("...", "N"))),
    attributes=(Attribute("epsilon", "float"),),
)

Array = NDArray[np.float32]


def reference(x: Array, delta: Array, scale: Array, *, epsilon: float) -> tuple[Array, Array]:
    """``sum = X + delta`` and ``Y = sum / sqrt(mean(sum ** 2) + epsilon) * scale``.

    The sum is float32; the norm is computed here in float64 (arXiv 1910.07467). Kernels work in
    float32: within 1e-5 of this, relative to the largest of a row.

    Returns:
        Y and the sum, float32 of X's shape.
    """
    total = x + delta
    wide = total.astype(np.float64)
    inverse = 1 / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + epsilon)
    return (wide * inverse * scale).astype(np.float32), total


BODY = """
    sum = Add (X, delta)
    Y = RMSNormalization <axis = -1, epsilon: float = @epsilon> (sum, scale)
"""


def function() -> onnx.FunctionProto:
    """The operator in standard ones."""
    return build(OP, BODY)
