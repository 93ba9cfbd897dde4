"""ArgMax: the greedy choice. ONNX's own, over the last axis; runtimes take long for large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.body import build
from edgedec.kernels.operator import Operator, Tensor

if TYPE_CHECKING:
    import onnx

OP = Operator(
    name="ArgMax",
    inputs=(Tensor("X", "float32", ("...", "N")),),
    outputs=(Tensor("Y", "int64", ("...",)),),
    attributes=(),
)


def reference(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """The index of the largest number of each row, the first of equal ones; any index for NaN."""
    found: NDArray[np.int64] = x.argmax(axis=-1)
    return found


BODY = """
    Y = ArgMax <axis = -1, keepdims = 0> (X)
"""


def function() -> onnx.FunctionProto:
    """The operator in a standard one."""
    return build(OP, BODY)
