"""Token embedding and output head."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.export.blocks.builder import Builder
from edgedec.export.blocks.linear import linear, norm
from edgedec.export.blocks.positions import add_positions
from edgedec.export.spec import Learned, ModelSpec, Sinusoidal, Stack


def embed(
    b: Builder,
    spec: ModelSpec,
    stack: Stack,
    input_ids: ir.Value,
    positions: ir.Value | None,
    rows: int | None,
) -> ir.Value:
    """Embed ``input_ids [B, T]`` to ``[B, T, d_model]``; the scope is the stack.

    ``rows`` is the number of positions that the stack's table covers.
    """
    table = b.weight("embed.weight", (spec.vocab_size, spec.d_embedding))
    x = b.op("Gather", table, input_ids, name="embed")
    if spec.embedding_scale != 1.0:
        x = b.op("Mul", x, spec.embedding_scale, name="embed.scale")
    if spec.d_embedding != spec.d_model:
        x = linear(b, x, "embed_in", spec.d_embedding, spec.d_model, bias=False)
    if isinstance(stack.positions, Learned | Sinusoidal):
        assert positions is not None
        assert rows is not None
        x = add_positions(b, x, stack.positions, positions, rows, spec.d_model)
    return norm(b, x, stack, spec.d_model, "embed_norm") if stack.embedding_norm else x


def head(b: Builder, spec: ModelSpec, hidden: ir.Value, logit_positions: ir.Value) -> ir.Value:
    """Logits ``[B, P, vocab]`` of ``hidden [B, T', d_model]`` at ``logit_positions [B, P]``.

    Positions are picked before the product: prefill needs one row of logits, not all of them.
    The product is a ``Gemm`` over rows, so that a tied head reads the embedding as it is stored.
    """
    with b.scope("decoder"):
        x = b.op("Unsqueeze", logit_positions, [2], name="pick.index")
        x = b.op("GatherND", hidden, x, batch_dims=1, name="pick")
        if spec.decoder.final_norm:
            x = norm(b, x, spec.decoder, spec.d_model)
        if spec.logit_scale != 1.0:
            x = b.op("Mul", x, spec.logit_scale, name="norm.scale")
        if spec.d_embedding != spec.d_model:
            x = linear(b, x, "embed_out", spec.d_model, spec.d_embedding, bias=False)
    with b.scope("head"):
        flat = b.op("Reshape", x, [-1, spec.d_embedding], name="rows")
        shape = (spec.vocab_size, spec.d_embedding)
        inputs = [flat, b.weight("weight", shape)]
    if spec.logit_bias:
        bias = b.vector("logit_bias", (1, spec.vocab_size))
        inputs.append(bias)
    logits = b.op("Gemm", *inputs, transB=1, name="head")
    with b.scope("head"):
        picked = b.op("Shape", logit_positions, name="picked")
        shape_out = b.op("Concat", picked, [-1], axis=0, name="shape")
        return b.op("Reshape", logits, shape_out, name="logits")
