"""Linear layers, norms and the feed-forward block."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.export.blocks.builder import Builder
from edgedec.export.spec import Stack

ACTIVATIONS = {
    "relu": ("Relu", {}),
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "silu": ("Swish", {}),
}


def linear(
    b: Builder, x: ir.Value, name: str, width_in: int, width_out: int, *, bias: bool
) -> ir.Value:
    """``x [..., width_in] -> [..., width_out]``; the product's node carries the module's path.

    Where the checkpoint keeps a LoRA branch beside the matrix (arXiv 2106.09685), it is added.
    """
    y = _product(b, x, name, width_in, width_out)
    if bias:
        y = b.op("Add", y, b.vector(f"{name}.bias", (width_out,)), name=f"{name}.bias_add")
    if b.has(f"{name}.lora_A.weight"):
        branch = low_rank(b, x, f"{name}.lora_A", f"{name}.lora_B", width_in, width_out)
        y = b.op("Add", y, branch, name=f"{name}.lora_add")
    return y


def low_rank(
    b: Builder, x: ir.Value, down: str, up: str, width_in: int, width_out: int
) -> ir.Value:
    """``up(down(x))``, without biases; ``down.weight`` is ``[rank, width_in]``."""
    rank = b.rows(f"{down}.weight")
    return _product(b, _product(b, x, down, width_in, rank), up, rank, width_out)


def _product(b: Builder, x: ir.Value, name: str, width_in: int, width_out: int) -> ir.Value:
    weight = b.weight(f"{name}.weight", (width_out, width_in), transpose=True)
    return b.op("MatMul", x, weight, name=name)


def norm(b: Builder, x: ir.Value, stack: Stack, width: int, name: str = "norm") -> ir.Value:
    """RMS or layer normalisation over the last axis (ONNX RMSNormalization, LayerNormalization)."""
    scale = b.vector(f"{name}.weight", (width,))
    if stack.norm == "rms":
        return b.op(
            "RMSNormalization", x, scale, name=name, axis=-1, epsilon=float(stack.norm_epsilon)
        )
    bias = b.vector(f"{name}.bias", (width,))
    return b.op(
        "LayerNormalization", x, scale, bias, name=name, axis=-1, epsilon=float(stack.norm_epsilon)
    )


def feed_forward(b: Builder, x: ir.Value, stack: Stack, width: int) -> ir.Value:
    """``down(act(up(x)))`` or, gated, ``down(act(gate(x)) * up(x))``."""
    op_type, attributes = ACTIVATIONS[stack.activation]
    up = linear(b, x, "up", width, stack.d_ff, bias=stack.mlp_bias)
    if stack.gated:
        gate = linear(b, x, "gate", width, stack.d_ff, bias=stack.mlp_bias)
        inner = b.op("Mul", b.op(op_type, gate, name="act", **attributes), up, name="gated")
    else:
        inner = b.op(op_type, up, name="act", **attributes)
    return linear(b, inner, "down", stack.d_ff, width, bias=stack.mlp_bias)
