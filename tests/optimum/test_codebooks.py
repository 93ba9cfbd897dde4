"""Traced graphs with codebook weights: held against torch with the same weights and roundings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from tests.optimum.conftest import Subject

import edgedec
from edgedec.errors import CheckFailedError
from edgedec.export import optimum
from edgedec.kernels.library import library_path, refused
from edgedec.runtime.manifest import Manifest

HAS_LIBRARY = library_path() is not None and refused(onnxruntime.__version__) is None


@pytest.mark.parametrize("scheme", ["cb4", "int8"])
def test_codes(subject: Subject, tmp_path: Path, scheme: str) -> None:
    """The export's check is the comparison: every matrix is found in torch, and changed there."""
    bundle = edgedec.export(subject.checkpoint, tmp_path / "b", via="optimum", quant=scheme)
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


def test_a_matrix_that_torch_does_not_have(
    make_checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace may fold two constants into one: then nothing can be compared, and that is said."""
    pytest.importorskip("optimum.exporters.onnx", reason="needs optimum-onnx: make test-optimum")
    seen = iter(range(1_000_000))
    monkeypatch.setattr(optimum, "_hash", lambda values: str(next(seen)).encode())
    with pytest.raises(CheckFailedError, match=r"are no parameters of the model \(--no-verify"):
        edgedec.export(make_checkpoint("gpt2"), tmp_path / "b", via="optimum", quant="cb4")
    assert not (tmp_path / "b").exists()
