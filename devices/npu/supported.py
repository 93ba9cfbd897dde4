"""Which operators devices run, with the numbers that they should give."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.passes.refusal import RefusalError

RUN = frozenset(
    (
        *(
            "Add",
            "ArgMax",
            "Cast",
            "Concat",
            "Div",
            "Exp",
            "Gather",
            "Gelu",
            "Gemm",
            "LayerNormalization",
        ),
        *("LogSoftmax", "MatMul", "Max", "Min", "Mul", "Neg", "Pow", "RMSNormalization"),
        *("ReduceMean", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Sub"),
        *("Squeeze", "Tanh", "Transpose", "Unsqueeze"),
    )
)
"""Of the operators that were tried on the HTP's simulator (docs/npu.md), those that lowering may
leave in a graph. Left out on purpose: Erf, which is refused; ScatterElements and ScatterND, whose
numbers are wrong without an error where grids differ; Attention, which becomes an island in
floating point."""


def check_operators(graph: ir.Graph) -> None:
    """Refuse what no NPU of ours runs.

    Raises:
        RefusalError: an operator that is not in the table.
    """
    for node in graph:
        if node.domain or node.op_type not in RUN:
            raise RefusalError(node, "it does not run that operator")


def check_shapes(graph: ir.Graph) -> None:
    """Refuse a graph in which some length is open.

    Raises:
        RefusalError: the first node that computes a value of such a shape.
    """
    for node in graph:
        for value in node.outputs:
            if value.shape is None or not all(isinstance(n, int) for n in value.shape):
                raise RefusalError(node, "its shape is not fixed")
