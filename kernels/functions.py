"""The function bodies by operator, as a lowered model holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def function(op_type: str, *, row_order: bool = False, ragged: bool = True) -> ir.Function:
    """The body of an operator that has one, for ``model.functions``.

    A model file has one body per operator, so the options speak for all of its nodes.

    Args:
        op_type: name of the operator.
        row_order: every CodebookMatMul and CodebookGather has the input ``row_order``.
        ragged: the K of some CodebookMatMul is no multiple of its unit (`Packed.ragged`).

    Raises:
        KeyError: another operator.
    """
    import onnx_ir as ir

    from edgedec.kernels import (
        add_rms_norm,
        arg_max,
        codebook_gather,
        codebook_matmul,
        decode_attention,
        memory_attention,
    )

    bodies = {
        "CodebookMatMul": lambda: codebook_matmul.function(row_order=row_order, ragged=ragged),
        "CodebookGather": lambda: codebook_gather.function(row_order=row_order),
        "DecodeAttention": decode_attention.function,
        "MemoryAttention": memory_attention.function,
        "AddRMSNorm": add_rms_norm.function,
        "ArgMax": arg_max.function,
    }
    return ir.serde.deserialize_function(bodies[op_type]())
