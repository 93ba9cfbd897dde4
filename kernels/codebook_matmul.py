"""CodebookMatMul: ``Y = X . W^T (+ bias)`` with W stored as codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgedec.kernels.body import ORDER, UNPACK, build
from edgedec.kernels.operator import Attribute, Operator, Tensor
from edgedec.kernels.packing import Packed

if TYPE_CHECKING:
    import onnx

Compute = Literal["int8", "int8-block", "bf16", "fp32"]
COMPUTES: tuple[Compute, ...] = get_args(Compute)
BLOCK_COLUMNS = 128
"""Inputs that share a scale in ``int8-block``."""
SMALLEST = np.float32(2.0**-100)
"""Inputs whose largest is below this count as 0: 127 / largest stays far from overflow."""

# A node lists all three outputs, those that it does not have as "": putting a function body in the
# place of a shorter list, ONNX Runtime 1.31 fails and 1.25 aborts.
OP = Operator(
    name="CodebookMatMul",
    inputs=(
        Tensor("X", "float32", ("...", "K")),
        Tensor("W", "uint8", ("P", "U", "C"), constant=True),
        Tensor("levels", "int8", ("G", "2**bits"), constant=True),
        Tensor("row_scale", "float32", ("N",), constant=True),
        Tensor("group_of_block", "int32", ("4*P",), constant=True),
        Tensor("bias", "float32", ("N",), optional=True, constant=True),
        Tensor("row_order", "int32", ("N",), optional=True, constant=True),
    ),
    outputs=(
        Tensor("Y0", "float32", ("...", "n0")),
        Tensor("Y1", "float32", ("...", "n1"), optional=True),
        Tensor("Y2", "float32", ("...", "n2"), optional=True),
    ),
    attributes=(
        Attribute("bits", "int"),
        Attribute("compute", "string"),
        Attribute("splits", "ints"),
    ),
)

Array = NDArray[np.float32]


def reference(
    x: Array,
    packed: Packed,
    bias: Array | None = None,
    *,
    compute: Compute = "int8",
    splits: tuple[int, int, int] | None = None,
) -> tuple[Array, Array, Array]:
    """What the operator is defined to return, to the last bit.

    With ``W = level * row_scale``, all arithmetic in float32 and nothing fused unless said:

    - ``int8``: per row of X, ``q = rint(x * (127 / max|x|))``, half to even, and
      ``s = max|x| / 127`` (both 0 where ``max|x| < 2**-100``);
      ``Y = (sum(q * level) * s) * row_scale + bias`` with an exact sum, rounded once. A row with
      infinity or NaN gives NaN.
    - ``int8-block``: the same with q and s per 128 inputs; the blocks' ``sum * s`` are added in
      order before the row scale.
    - ``fp32``: ``acc = fma(level, x, acc)`` in the order of k; ``Y = acc * row_scale + bias``.
    - ``bf16``: as fp32, with x rounded to bfloat16 (half to even) first.

    Args:
        x: float32 ``[..., K]``.
        packed: the matrix ``[N, K]``.
        bias: float32 ``[N]`` in the matrix's order of rows.
        compute: one of `COMPUTES`.
        splits: columns of the three results, which sum to N; ``(N, 0, 0)`` if None.

    Returns:
        Three arrays, float32 ``[..., splits[i]]``.

    Raises:
        ValueError: shapes that do not belong together, or an unknown ``compute``.
    """
    splits = splits or (packed.rows, 0, 0)
    if x.shape[-1] != packed.columns or sum(splits) != packed.rows or min(splits) < 0:
        raise ValueError(
            f"inputs {list(x.shape)} and results {list(splits)} do not fit a matrix "
            f"{[packed.rows, packed.columns]}"
        )
    rows = x.reshape(-1, packed.columns)
    levels = packed.integers()
    if compute == "fp32":
        sums = _fused_chain(rows, levels)
    elif compute == "bf16":
        sums = _fused_chain(to_bfloat16(rows), levels)
    elif compute in COMPUTES:
        sums = _quantized(rows, levels, BLOCK_COLUMNS if compute == "int8-block" else len(levels.T))
    else:
        raise ValueError(f"compute must be one of {COMPUTES}, not {compute!r}")
    y = np.empty_like(sums)
    order = slice(None) if packed.row_order is None else packed.row_order
    with np.errstate(invalid="ignore", over="ignore"):
        y[:, order] = sums * packed.row_scale
        if bias is not None:
            y += bias
    y = y.reshape(*x.shape[:-1], packed.rows)
    first, second, third = np.split(y, np.cumsum(splits)[:2], axis=-1)
    return first, second, third


ALL_ROWS = """
    row_from = Constant <value_int=0> ()
    row_step = Constant <value_int=1> ()
    row_count = Shape (row_scale)
    row_end = Squeeze (row_count)
    rows = Range (row_from, row_end, row_step)
"""
REORDERED = "rows = Identity (packed_row)"
EVEN = """
    x = Flatten <axis=-1> (X)
"""
RAGGED = """
    given = Flatten <axis=-1> (X)
    given_width = Shape <start=1> (given)
    full_width = Shape <start=1> (matrix)
    missing = Sub (full_width, given_width)
    untouched = Constant <value_ints=[0, 0, 0]> ()
    pads = Concat <axis=0> (untouched, missing)
    x = Pad (given, pads)
"""
PRODUCT = """
    product = Gemm <transB=1> (x, matrix, bias)
    leading = Shape <end=-1> (X)
    N = Shape (row_scale)
    result_shape = Concat <axis=0> (leading, N)
    Y = Reshape <allowzero=1> (product, result_shape)
    parts = Constant <value_ints: ints = @splits> ()
    Y0, Y1, Y2 = Split <axis=-1> (Y, parts)
"""


def function(*, row_order: bool = False, ragged: bool = True) -> onnx.FunctionProto:
    """The operator in standard ones. It computes as ``fp32`` whatever ``compute`` says.

    Sums may be ordered otherwise, so results are within ``(K + 3) * 2**-23`` times the sum of the
    absolute products and bias. All but the product depends on initializers alone, and ONNX Runtime
    does it once.

    Args:
        row_order: every node of the model file has this input; otherwise none has it.
        ragged: the inputs are padded to whole units, which is needed if the K of any node is no
            multiple of ``UNIT_COLUMNS[bits]`` (`Packed.ragged`) and costs one copy of X.
    """
    rows = ORDER + REORDERED if row_order else ALL_ROWS
    x = RAGGED if ragged else EVEN
    return build(OP, rows + UNPACK + x + PRODUCT, len(OP.inputs) if row_order else -1)


def quantize_inputs(rows: Array) -> tuple[NDArray[np.int8], Array]:
    """Inputs ``[M, K]`` as int8 ``[M, K]`` times a scale ``[M, 1]``, by the rule of ``int8``."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    finite = np.isfinite(largest)
    used = finite & (largest >= SMALLEST)
    inverse = np.float32(127) / np.where(used, largest, np.float32(1))
    q = np.rint(np.where(used, rows, np.float32(0)) * inverse).astype(np.int8)
    scale = np.where(used, largest, np.float32(0)) / np.float32(127)
    return q, np.where(finite, scale, np.float32(np.nan))


def to_bfloat16(x: Array) -> Array:
    """Round to the nearest bfloat16, half to even, stored as float32; NaN stays NaN."""
    raw = x.view(np.uint32)
    rounded = raw + (np.uint32(0x7FFF) + (raw >> np.uint32(16) & np.uint32(1)))
    return np.where(np.isnan(x), x, (rounded & np.uint32(0xFFFF0000)).view(np.float32))


def _quantized(rows: Array, levels: NDArray[np.int8], width: int) -> Array:
    """Sums ``[M, N]`` over blocks of ``width`` inputs, each block with its own scale."""
    sums = np.zeros((len(rows), len(levels)), np.float32)
    for start in range(0, rows.shape[1], width):
        block = slice(start, start + width)
        q, scale = quantize_inputs(rows[:, block])
        # float64 holds these integers exactly, and BLAS multiplies it
        exact = q.astype(np.float64) @ levels[:, block].T.astype(np.float64)
        sums += exact.astype(np.float32) * scale
    return sums


def _fused_chain(rows: Array, levels: NDArray[np.int8]) -> Array:
    """Sums ``[M, N]`` of ``fma(level, x, acc)`` in the order of the columns."""
    sums = np.zeros((len(rows), len(levels)), np.float32)
    wide = rows.astype(np.float64)
    for k in range(rows.shape[1]):
        sums = _add_once_rounded(wide[:, k, None] * levels[:, k], sums)
    return sums


def _add_once_rounded(product: NDArray[np.float64], acc: Array) -> Array:
    """``product + acc`` rounded to float32 once, as a fused multiply-add does.

    The product of two float32 is exact in float64, but the sum is rounded there first. Rounding
    that to odd keeps the second rounding right (Boldo and Melquiond, "Emulation of FMA and
    correctly rounded sums", 2008).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = product + acc
        back = total - product
        error = (product - (total - back)) + (acc - back)
        raw = total.view(np.int64)
        inexact = np.isfinite(total) & (error != 0) & (raw & 1 == 0)
        raw += np.where(inexact, np.where((error > 0) == (total > 0), 1, -1), 0)
        return total.astype(np.float32)
