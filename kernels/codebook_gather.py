"""CodebookGather: rows of a matrix stored as codes, such as token embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.operator import Attribute, Operator, Tensor
from edgedec.kernels.packing import Packed

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
