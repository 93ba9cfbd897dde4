"""The floating-point graphs of a bundle, to make another bundle of."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.passes.hidden import find_hidden, reorder
from edgedec.devices.passes.linear import find_linears
from edgedec.devices.passes.widen import widen
from edgedec.errors import InputError
from edgedec.quantize.grouping import by_distribution
from edgedec.quantize.method import Settings
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Manifest


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
        widen(models[name].graph)
    return models


def _sort_hidden(graph: ir.Graph, groups: int) -> None:
    for hidden in find_hidden(find_linears(graph)):
        order = by_distribution(hidden.producers[0].matrix.read(), groups).order
        if order is not None:
            reorder(hidden, order)
