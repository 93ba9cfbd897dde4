"""Weights as integers that DequantizeLinear reads: a scale per output, or per block of inputs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.precision.constants import Packed, add_tensor
from edgedec.devices.npu.precision.precisions import block_size
from edgedec.devices.npu.precision.rounding import fit_groups, from_blocks, to_blocks
from edgedec.devices.npu.precision.weights import Weight

LEVELS = 15
"""A block's scale is 1 to 15 times its output's scale / 15 (low-power block quantisation)."""
Tensors = tuple[ir.TensorProtocol, ...]


def channel_weight(graph: ir.Graph, weight: Weight, bits: int, packed: Packed) -> ir.Value:
    """The matrix ``[columns, rows]`` from integers with a scale per output."""
    made = packed.get(weight, f"channels{bits}", lambda v: _channels(v, bits, weight.name))
    name = f"{weight.path}.matrix"
    return _dequantize(graph, made, name, weight, axis=1)


def block_weight(graph: ir.Graph, weight: Weight, packed: Packed) -> ir.Value:
    """The matrix ``[columns, rows]`` from integers of 4 bits with a scale per output and block."""
    made = packed.get(weight, "lpbq", lambda v: _two_levels(v, weight.name))
    codes, zeros, levels, scales, none = made
    name = f"{weight.path}.matrix"
    scale = _dequantize(graph, (levels, scales, none), f"{weight.path}.scales", weight, axis=1)
    block = block_size(weight.columns)
    scale.shape = ir.Shape((weight.columns // block, weight.rows))
    node = ir.Node(
        "",
        "DequantizeLinear",
        [add_tensor(graph, codes), scale, add_tensor(graph, zeros)],
        [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", block)],
        num_outputs=1,
        name=name,
    )
    return _place(graph, node, weight, scale)


def round_channels(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The values ``[rows, columns]`` that a matrix with a scale per row has after rounding."""
    codes, scales = fit_groups(values, bits)
    return (codes * scales[:, None]).astype(np.float32)


def round_two_levels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values ``[rows, columns]`` that a matrix has in blocks whose scales are integers."""
    codes, levels, scales = _fit_two_levels(values)
    return from_blocks(codes, (levels * scales[:, None]).ravel(), values.shape)


def _fit_two_levels(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.uint8], NDArray[np.float32]]:
    """Codes ``[rows * blocks, block]``, levels ``[rows, blocks]``, scales ``[rows]``."""
    rows, columns = values.shape
    blocks = to_blocks(values, block_size(columns))
    tried, best = fit_groups(blocks, 4)
    # a block of zeros has any scale, which must not be the row's
    best = np.where(tried.any(1), best, 0).reshape(rows, -1)
    most = best.max(1)
    scales = (np.where(most > 0, most, 1) / LEVELS).astype(np.float32)
    levels = np.clip(np.rint(best / scales[:, None]), 1, LEVELS).astype(np.uint8)
    steps = (levels * scales[:, None]).reshape(-1, 1)
    codes = np.clip(np.rint(blocks / steps), -8, 7).astype(np.int8)
    return codes, levels, scales


def _two_levels(values: NDArray[np.float32], name: str) -> Tensors:
    codes, levels, scales = _fit_two_levels(values)
    columns_first = np.ascontiguousarray(codes.reshape(values.shape).T)
    return (
        ir.tensor(columns_first.astype(ml_dtypes.int4), name=f"{name}.int4"),
        # without a zero point, integers of 4 bits are read wrongly and nothing is said
        ir.tensor(np.zeros(levels.T.shape, ml_dtypes.int4), name=f"{name}.zeros4"),
        ir.tensor(np.ascontiguousarray(levels.T), name=f"{name}.levels"),
        ir.tensor(scales, name=f"{name}.level_scales"),
        ir.tensor(np.zeros(len(scales), np.uint8), name=f"{name}.level_zeros"),
    )


def _channels(values: NDArray[np.float32], bits: int, name: str) -> Tensors:
    codes, scales = fit_groups(values, bits)
    dtype = np.int8 if bits == 8 else ml_dtypes.int4
    return (
        ir.tensor(np.ascontiguousarray(codes.T).astype(dtype), name=f"{name}.int{bits}"),
        ir.tensor(scales, name=f"{name}.scales{bits}"),
        ir.tensor(np.zeros(len(scales), dtype), name=f"{name}.zeros{bits}"),
    )


def _dequantize(
    graph: ir.Graph, tensors: Tensors, name: str, weight: Weight, *, axis: int
) -> ir.Value:
    node = ir.Node(
        "",
        "DequantizeLinear",
        [add_tensor(graph, tensor) for tensor in tensors],
        [ir.AttrInt64("axis", axis)],
        num_outputs=1,
        name=name,
    )
    return _place(graph, node, weight, None)


def _place(graph: ir.Graph, node: ir.Node, weight: Weight, after: ir.Value | None) -> ir.Value:
    made = node.outputs[0]
    made.name, made.type = node.name, ir.TensorType(ir.DataType.FLOAT)
    made.shape = ir.Shape((weight.columns, weight.rows))
    before = after.producer() if after is not None else None
    if before is not None:
        graph.insert_after(before, node)
    else:
        graph.insert_before(graph[0], node)
    return made
