"""Weights in blocks of inputs with a scale each (MatMulNBits); activations stay float.

The operator is ONNX Runtime's own (domain com.microsoft): its CPU kernels run it, and Qualcomm's
provider makes a product with float16 activations and block-quantised weights of it, if its input
has three axes and the blocks fill the inputs. It keeps scales as float16, so they are stored so.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.precision.constants import Packed, add_tensor
from edgedec.devices.npu.precision.halves import check_half, read_half
from edgedec.devices.npu.precision.precisions import block_size
from edgedec.devices.npu.precision.rounding import fit_groups, from_blocks, to_blocks
from edgedec.devices.npu.precision.weights import Reader, Weight
from edgedec.devices.passes.change import take_over

DOMAIN = "com.microsoft"
RANK = 3
"""Axes of an input that the provider takes."""


def use_blocks(graph: ir.Graph, reader: Reader, weight: Weight, bits: int, packed: Packed) -> None:
    """Let a product read its matrix in blocks, in place."""
    node = reader.node
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    assert x.shape is not None
    codes, scales = packed.get(
        weight, f"nbits{bits}", lambda values: _tensors(values, bits, weight.name)
    )
    lead = x.shape.numpy()[:-1]
    wide = (*(1,) * (RANK - 1 - len(lead)), *lead)
    before = (
        _reshape(graph, x, (*wide, weight.columns), f"{node.name}.in") if wide != lead else None
    )
    sizes = {
        "K": weight.columns,
        "N": weight.rows,
        "bits": bits,
        "block_size": block_size(weight.columns),
    }
    product = ir.Node(
        DOMAIN,
        "MatMulNBits",
        [before.outputs[0] if before else x, add_tensor(graph, codes), read_half(graph, scales)],
        [ir.AttrInt64(name, value) for name, value in sizes.items()],
        num_outputs=1,
        name=node.name,
    )
    nodes = [before, product] if before else [product]
    if before:
        nodes.append(_reshape(graph, product.outputs[0], (*lead, weight.rows), f"{node.name}.out"))
        product.outputs[0].shape = ir.Shape((*wide, weight.rows))
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        last = nodes[-1].outputs[0]
        last.shape = y.shape
        added = ir.Node("", "Add", [last, node.inputs[2]], num_outputs=1, name=f"{node.name}.bias")
        nodes.append(added)
    for made in nodes[:-1]:
        made.outputs[0].name, made.outputs[0].type = f"{made.name}.value", y.type
        graph.insert_before(node, made)
    take_over(graph, nodes[-1], [node], node)
    graph.opset_imports[DOMAIN] = 1


def round_blocks(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The values ``[rows, columns]`` that a matrix has after rounding."""
    block = block_size(values.shape[1])
    codes, scales = fit_groups(to_blocks(values, block), bits, signed=True, half=True)
    return from_blocks(codes, scales, values.shape)


def _reshape(graph: ir.Graph, x: ir.Value, shape: tuple[int, ...], name: str) -> ir.Node:
    size = ir.tensor(np.array(shape, np.int64), name=f"shape.{'x'.join(map(str, shape))}")
    made = ir.Node("", "Reshape", [x, add_tensor(graph, size)], num_outputs=1, name=name)
    made.outputs[0].shape = ir.Shape(shape)
    return made


def _tensors(
    values: NDArray[np.float32], bits: int, name: str
) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    """Codes uint8 ``[rows, blocks, bytes]``, two of 4 bits in a byte, the first one low; scales."""
    rows, columns = values.shape
    check_half(values, name)
    blocks = to_blocks(values, block_size(columns))
    signed, scales = fit_groups(blocks, bits, signed=True, half=True)
    # the operator's integers are those that a zero point of the middle makes positive
    codes: NDArray[np.uint8] = (signed.astype(np.int16) + (1 << bits - 1)).astype(np.uint8)
    if bits == 4:
        codes = np.bitwise_or(codes[:, ::2], codes[:, 1::2] << np.uint8(4))
    return (
        ir.tensor(codes.reshape(rows, -1, codes.shape[1]), name=f"{name}.codes{bits}"),
        ir.tensor(scales.reshape(rows, -1).astype(np.float16), name=f"{name}.scales{bits}"),
    )
