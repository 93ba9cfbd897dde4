"""The floating-point graphs of a bundle, to make another bundle of."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from edgedec.devices.passes.change import replace
from edgedec.devices.passes.hidden import find_hidden, reorder
from edgedec.devices.passes.linear import find_linears
from edgedec.errors import InputError
from edgedec.quantize.grouping import by_distribution
from edgedec.quantize.method import Settings
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Manifest

NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def float_graphs(bundle: Bundle, settings: Settings) -> dict[str, ir.Model]:
    """The graphs of the model itself, in order, as `every_graph` gives them."""
    manifest = bundle.manifest
    names = [manifest.encoder, *(stage.component for stage in manifest.stages), manifest.head]
    graphs = every_graph(bundle, settings)
    return {name: graphs[name] for name in names if name is not None}


def full_graphs(manifest: Manifest) -> dict[str, str]:
    """Component -> the one whose matrices it has: of a stage's variant, the stage; else itself."""
    found = {name: name for name in manifest.components}
    return found | {v: s.component for s in manifest.stages for v in s.variants.values()}


def every_graph(bundle: Bundle, settings: Settings) -> dict[str, ir.Model]:
    """Every component's graph with float32 weights, which stay in their file until they are read.

    Weights that are stored in 16 bits lose the node that widens them. Where rows of like
    distribution are to share a codebook, hidden units are put into such an order that those of the
    first product that computes them do; this changes nothing else, and needs no order of rows.

    Raises:
        InputError: the bundle's weights are codes already.
    """
    if bundle.manifest.codebooks is not None:
        raise InputError(
            f"the weights of {str(bundle.folder)!r} are codes already "
            f"({bundle.manifest.codebooks.scheme}): quantize the bundle or checkpoint that it was "
            "made from."
        )
    models = wide_graphs(bundle)
    if settings.grouping != "contiguous":
        for model in models.values():
            _sort_hidden(model.graph, settings.groups)
    return models


def wide_graphs(bundle: Bundle) -> dict[str, ir.Model]:
    """Every component's graph; weights that are stored in 16 bits become float32, codes stay."""
    models = {}
    for name, component in bundle.manifest.components.items():
        models[name] = ir.load(bundle.path(component.file))
        _widen(models[name].graph)
    return models


def _widen(graph: ir.Graph) -> None:
    """Let initializers of 16 bits be float32 where all that reads them is a cast to it."""
    for node in list(graph):
        stored = node.inputs[0] if (node.domain, node.op_type) == ("", "Cast") else None
        if (
            stored is None
            or not stored.is_initializer()
            or stored.dtype not in NARROW
            or node.attributes["to"].as_int() != ir.DataType.FLOAT
            or len(stored.uses()) != 1
        ):
            continue
        narrow, name = stored.const_value, str(stored.name)
        assert narrow is not None
        shape = ir.Shape(narrow.shape.numpy())
        tensor = ir.LazyTensor(
            partial(_read, narrow, name), dtype=ir.DataType.FLOAT, shape=shape, name=name
        )
        wide = ir.Value(
            name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        replace(graph, node.outputs[0], wide)
        graph.remove(node, safe=True)
        del graph.initializers[name]
        graph.register_initializer(wide)


def _sort_hidden(graph: ir.Graph, groups: int) -> None:
    for hidden in find_hidden(find_linears(graph)):
        order = by_distribution(hidden.producers[0].matrix.read(), groups).order
        if order is not None:
            reorder(hidden, order)


def _read(narrow: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    return ir.Tensor(narrow.numpy().astype(np.float32), name=name)
