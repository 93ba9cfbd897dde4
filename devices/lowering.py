"""Lower a model's graphs to our own operators: codebook weights and attention over live lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from edgedec.devices.matrices import PackedMatrix
from edgedec.devices.passes.attention import fuse_attention
from edgedec.devices.passes.codebooks import Packer, use_codebooks
from edgedec.devices.passes.rows import fuse_choices, fuse_norms
from edgedec.kernels.codebook_matmul import Compute
from edgedec.kernels.functions import function
from edgedec.kernels.operator import DOMAIN, VERSION
from edgedec.quantize.matrices import Quantize


def lower_graphs(
    models: Mapping[str, ir.Model], quantize: Quantize, *, compute: Compute, portable: bool
) -> dict[str, list[PackedMatrix]]:
    """Lower every graph of a model, in place.

    Args:
        models: component name -> model, with float32 weights.
        quantize: asked for every product's matrix, and every embedding, once; the same object
            for the same matrix in two graphs lets them share it.
        compute: how products are computed where the library is.
        portable: leave everything but the matrices in standard operators.

    Returns:
        For every component the matrices that it holds as codebooks.
    """
    packer = Packer(quantize, [model.graph for model in models.values()])
    found = {}
    for name, model in models.items():
        found[name] = use_codebooks(model.graph, packer, compute)
        if not portable:
            fuse_attention(model.graph)
            fuse_norms(model.graph)
            fuse_choices(model.graph)
        _remove_dead(model)
        _add_functions(model, found[name])
    return found


def _remove_dead(model: ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def _add_functions(model: ir.Model, matrices: Iterable[PackedMatrix]) -> None:
    """Give our operators their bodies, for whoever runs the graph without the library."""
    used = sorted({node.op_type for node in model.graph if node.domain == DOMAIN})
    if not used:
        return
    packed = [matrix.packed for matrix in matrices]
    ordered = any(item.row_order is not None for item in packed)
    ragged = any(item.ragged for item in packed)
    model.graph.opset_imports[DOMAIN] = VERSION
    for op_type in used:
        body = function(op_type, row_order=ordered, ragged=ragged)
        # A function is to import what its model does; of matrices, bodies mean the same from 18 on.
        body.opset_imports[""] = model.graph.opset_imports[""]
        model.functions[body.identifier()] = body
