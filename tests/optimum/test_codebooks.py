"""Traced graphs with codebook weights: held against the same graphs with floating-point ones."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
from tests.optimum.conftest import Subject

import edgedec
from edgedec.kernels.library import library_path, refused
from edgedec.runtime.manifest import Manifest

HAS_LIBRARY = library_path() is not None and refused(onnxruntime.__version__) is None


@pytest.mark.parametrize(("scheme", "method"), [("cb4", "kmeans"), ("int8", "rtn")])
def test_codes(subject: Subject, tmp_path: Path, scheme: str, method: str) -> None:
    """The export's check is the comparison; no product keeps its matrix."""
    bundle = edgedec.export(
        subject.checkpoint, tmp_path / "b", via="optimum", quant=scheme, method=method
    )
    generator = edgedec.load(bundle, threads=1)
    manifest: Manifest = generator.bundle.manifest
    block, verified = manifest.codebooks, manifest.verified
    assert block is not None
    assert verified is not None
    assert verified.max_abs_difference <= 2e-5 * verified.logit_range
    assert (block.rounding is not None) == HAS_LIBRARY
    for component in manifest.components.values():
        model = onnx.load(bundle / component.file, load_external_data=False)
        left = [
            node.name
            for node in model.graph.node
            if node.op_type in {"MatMul", "Gemm"}
            and {t.name for t in model.graph.initializer} & set(node.input)
        ]
        assert left == []
    results = generator.generate([[5, 6, 7, 8], [9, 10]], max_new_tokens=4, num_beams=2)
    assert all(results)
