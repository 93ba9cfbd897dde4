"""Lower a component's graph to a resident graph."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.gpu.lowering.attention import Heads, lower_attention
from edgedec.devices.gpu.lowering.codes import lower_codes
from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.model import DECOMPOSABLE, WIDE, Form, Resident
from edgedec.devices.gpu.lowering.ports import add_next, narrow_outputs, profiles
from edgedec.devices.gpu.lowering.products import lower_embeddings, lower_products
from edgedec.devices.passes.attention import fuse_attention
from edgedec.devices.passes.codes import Matrices
from edgedec.devices.passes.standard import split_rows
from edgedec.devices.passes.widen import widen
from edgedec.runtime.manifest import Limits

NO_HEADS: Heads = {}


def lower_resident(
    model: ir.Model,
    matrices: Matrices,
    limits: Limits,
    form: Form,
    *,
    chains: bool,
    heads: Heads = NO_HEADS,
) -> Resident:
    """Write a component's graph as docs/bundle.md describes resident graphs.

    Args:
        model: the graph as a bundle has it; it stays as it is.
        matrices: those that it holds as codes.
        limits: how far caches and profiles reach.
        form: how codes are computed with.
        chains: give what the next step's inputs are.
        heads: name of a cache -> heads, for caches that no attention of this graph reads.

    Raises:
        RefusalError: a node that no resident graph can have.
    """
    copy = model.clone()
    graph = copy.graph
    widen(graph)
    split_rows(graph)
    fuse_attention(graph)
    copy.functions.clear()
    editor = Editor(graph)
    lower_products(editor, WIDE[form])
    expanded = lower_codes(editor, matrices, form)
    lower_embeddings(editor)
    lower_attention(editor, heads, limits.target, DECOMPOSABLE[form])
    narrow_outputs(editor)
    if chains:
        add_next(editor)
    _clean(copy)
    return Resident(copy, profiles(graph, limits), expanded)


def _clean(model: ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    used = {node.domain for node in model.graph}
    for domain in [d for d in model.graph.opset_imports if d and d not in used]:
        del model.graph.opset_imports[domain]
