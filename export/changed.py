"""A floating-point bundle with the weights that codes stand for: what a method costs a task."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgedec.export.bundle import save_graphs
from edgedec.export.floats import every_graph, full_graphs
from edgedec.export.learn import Quantizer, find_sites
from edgedec.export.model import Model
from edgedec.quantize.method import Settings
from edgedec.runtime.bundle import Bundle


@contextmanager
def changed_bundle(model: Model, quantizer: Quantizer, settings: Settings) -> Iterator[Bundle]:
    """Write it into the model's scratch folder, where it lives as long as the block.

    Args:
        model: as it was.
        quantizer: has quantized all of its matrices.
        settings: that the model's graphs were opened with.
    """
    manifest = model.bundle.manifest
    graphs = every_graph(model.bundle, settings)
    full = full_graphs(manifest)
    for component, sites in find_sites(graphs).items():
        for matrix in (site.matrix for site in sites):
            values = quantizer.found[full[component], matrix.name].dequantize()
            stored = np.ascontiguousarray(values.T if matrix.transposed else values)
            matrix.stored.const_value = ir.tensor(stored, name=matrix.name)
    with tempfile.TemporaryDirectory(dir=model.scratch) as name:
        folder = Path(name)
        files, _ = save_graphs(graphs, folder, lambda _what, _fraction: None)
        for other in manifest.files.keys() - files.keys():
            shutil.copy(model.bundle.path(other), folder / other)
        components = {
            component: replace(facts, file=f"{component}.onnx")
            for component, facts in manifest.components.items()
        }
        yield Bundle(folder, replace(manifest, components=components))
