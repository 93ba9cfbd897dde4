"""CodebookGather: rows of a matrix stored as codes, such as token embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.body import ORDER, UNPACK, build
from edgedec.kernels.operator import Attribute, Operator, Tensor
from edgedec.kernels.packing import Packed

if TYPE_CHECKING:
    import onnx

OP = Operator(
    name="CodebookGather",
    inputs=(
        Tensor("indices", "int64", ("...",)),
        Tensor("W", "uint8", ("P", "U", "C"), constant=True),
        Tensor("levels", "int8", ("G", "2**bits"), constant=True),
        Tensor("row_scale", "float32", ("N",), constant=True),
        Tensor("group_of_block", "int32", ("4*P",), constant=True),
        Tensor("row_order", "int32", ("N",), optional=True, constant=True),
    ),
    outputs=(Tensor("Y", "float32", ("...", "K")),),
    attributes=(Attribute("bits", "int"), Attribute("K", "int")),
)


def reference(indices: NDArray[np.int64], packed: Packed) -> NDArray[np.float32]:
    """Rows ``level * row_scale`` as float32 ``[..., K]``, one multiplication per weight.

    Args:
        indices: int64 ``[...]``, rows of the matrix in its own order.
        packed: the matrix ``[N, K]``.

    Raises:
        IndexError: an index below 0 or not below N.
    """
    if ((indices < 0) | (indices >= packed.rows)).any():
        raise IndexError(f"rows {indices.min()} to {indices.max()} of {packed.rows}")
    return packed.dequantize()[indices]


INDICES = """
    flat = Constant <value_ints=[-1]> ()
    asked = Reshape (indices, flat)
    lowest = Constant <value_int=0> ()
    negative = Less (asked, lowest)
    N = Shape (row_scale)
    checked = Where (negative, N, asked)
"""
"""Gather counts negative indices from the end; here they are errors, as N is."""
ROWS = {False: "rows = Identity (checked)", True: "rows = Gather <axis=0> (packed_row, checked)"}
RESULT = """
    K = Constant <value_int: int = @K> ()
    width = Reshape (K, flat)
    result = Slice (matrix, first, width, second)
    leading = Shape (indices)
    result_shape = Concat <axis=0> (leading, width)
    Y = Reshape <allowzero=1> (result, result_shape)
"""


def function(*, row_order: bool = False) -> onnx.FunctionProto:
    """The operator in standard ones, bit for bit. It unpacks the rows that are asked for only.

    Args:
        row_order: every node of the model file has this input; otherwise none has it.
    """
    rows = (ORDER if row_order else "") + INDICES + ROWS[row_order]
    return build(OP, rows + UNPACK + RESULT, len(OP.inputs) if row_order else -1)
