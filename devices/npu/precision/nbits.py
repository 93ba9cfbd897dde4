"""Weights in blocks of 32 inputs with a scale each (MatMulNBits); activations stay float.

The operator is ONNX Runtime's own (domain com.microsoft): its CPU kernels run it, and Qualcomm's
provider makes a product with float16 activations and block-quantised weights of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.precision.constants import Packed, add_tensor
from edgedec.devices.npu.precision.precisions import BLOCK
from edgedec.devices.npu.precision.rounding import fit_groups, from_blocks, to_blocks
from edgedec.devices.npu.precision.weights import Reader, Weight
from edgedec.devices.passes.change import take_over

DOMAIN = "com.microsoft"


def use_blocks(graph: ir.Graph, reader: Reader, weight: Weight, bits: int, packed: Packed) -> None:
    """Let a product read its matrix in blocks, in place."""
    node = reader.node
    codes, scales = packed.get(
        weight, f"nbits{bits}", lambda values: _tensors(values, bits, weight.name)
    )
    sizes = {"K": weight.columns, "N": weight.rows, "bits": bits, "block_size": BLOCK}
    made = ir.Node(
        DOMAIN,
        "MatMulNBits",
        [node.inputs[0], add_tensor(graph, codes), add_tensor(graph, scales)],
        [ir.AttrInt64(name, value) for name, value in sizes.items()],
        num_outputs=1,
        name=node.name,
    )
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is None:
        take_over(graph, made, [node], node)
    else:
        product = made.outputs[0]
        product.name, product.type = f"{node.outputs[0].name}.product", node.outputs[0].type
        product.shape = node.outputs[0].shape
        total = ir.Node("", "Add", [product, bias], num_outputs=1, name=f"{node.name}.bias")
        graph.insert_before(node, made)
        take_over(graph, total, [node], node)
    graph.opset_imports[DOMAIN] = 1


def round_blocks(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The values ``[rows, columns]`` that a matrix has after rounding."""
    codes, scales = fit_groups(to_blocks(values, BLOCK), bits, signed=True)
    return from_blocks(codes, scales, values.shape)


def _tensors(
    values: NDArray[np.float32], bits: int, name: str
) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    """Codes uint8 ``[rows, blocks, bytes]``, two of 4 bits in a byte, the first one low; scales."""
    rows = len(values)
    signed, scales = fit_groups(to_blocks(values, BLOCK), bits, signed=True)
    # the operator's integers are those that a zero point of the middle makes positive
    codes: NDArray[np.uint8] = (signed.astype(np.int16) + (1 << bits - 1)).astype(np.uint8)
    if bits == 4:
        codes = np.bitwise_or(codes[:, ::2], codes[:, 1::2] << np.uint8(4))
    return (
        ir.tensor(codes.reshape(rows, -1, codes.shape[1]), name=f"{name}.codes{bits}"),
        ir.tensor(scales.reshape(rows, -1), name=f"{name}.scales{bits}"),
    )
