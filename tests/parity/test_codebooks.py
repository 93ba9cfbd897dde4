"""Families with codebook weights: against the original model with the weights that codes stand for.

Products are in float32 here. Where they round their inputs, one that lies between two values goes
either way, and nothing can be compared closely; the export's own check measures that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tests.parity import decoder_only, mu, seq2seq
from tests.parity.harness import NEW_TOKENS, TOLERANCE, Case, Transformers, difference, torch
from tests.parity.mu_model import Mu
from tests.parity.subject import Subject

from edgedec.export import export_checkpoint
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.families import open_model
from edgedec.kernels.library import library_path, refused
from edgedec.kernels.packing import Packed
from edgedec.runtime.bundle import Bundle

Array = NDArray[np.float32]

# A tied and a scaled head, gates, tables per layer, biases, projections around the embedding, heads
# that share keys, and positions of every kind.
NAMES = {
    "t5-1.0",
    "t5-1.1",
    "t5 long",
    "umt5 tied",
    "bart",
    "marian",
    "llama biases",
    "llama wide heads, theta of transformers 4",
    "qwen2 tied",
    "opt",
    "opt post-norm, projected",
}
# Mu's heads are exported in another order where they share keys: these do not.
MU = mu.case("mu", replace(mu.SHAPE, n_kv_head=mu.SHAPE.n_head), "float32", {"model_type": "mu"})
CASES = [
    *(case for case in [*seq2seq.CASES, *decoder_only.CASES] if case.name in NAMES),
    MU,
]
WAYS = ["function bodies"]
if library_path() is not None and refused(onnxruntime.__version__) is None:
    WAYS.insert(0, "library")


def stored_matrices(bundle: Bundle) -> dict[str, Array]:
    """Initializer name -> the matrix that a bundle's codes stand for, read from its files."""
    codebooks = bundle.manifest.codebooks
    assert codebooks is not None
    found: dict[str, Array] = {}
    for component, matrices in codebooks.matrices.items():
        model = onnx.load(bundle.path(bundle.manifest.components[component].file))
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = {node.name: node for node in model.graph.node}
        for name, matrix in matrices.items():
            weight, levels, scale, group = (constants[i] for i in nodes[name].input[1:5])
            packed = Packed(weight, levels, scale, group, matrix.bits, matrix.columns)
            rows = np.cumsum([part.rows for part in matrix.parts])[:-1]
            parts = np.split(packed.dequantize(), rows)
            found |= {part.name: values for part, values in zip(matrix.parts, parts, strict=True)}
    return found


def give(oracle: Any, checkpoint: Path, stored: dict[str, Array]) -> None:
    """Put these weights in the place of a model's own, which are found by their values."""
    opened = open_checkpoint(checkpoint)
    _, weights = open_model(opened.config, opened.tensors)
    new = {weights[name].read().tobytes(): values for name, values in stored.items()}
    left = set(new)
    tensors = oracle.state.values() if isinstance(oracle, Mu) else oracle.model.parameters()
    with torch.no_grad():
        for tensor in {id(tensor): tensor for tensor in tensors}.values():
            key = tensor.numpy().tobytes()
            if key in new:
                tensor.copy_(torch.from_numpy(new[key]))
                left.discard(key)
    assert not left


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    case: Case = request.param
    folder = tmp_path_factory.mktemp("codes")
    checkpoint, oracle = case.write(folder / "checkpoint")
    made = Subject(
        case, folder, checkpoint, oracle, {"quant": "cb4", "method": "kmeans", "compute": "fp32"}
    )
    assert isinstance(oracle, Transformers | Mu)
    give(oracle, checkpoint, stored_matrices(made.generator().bundle))
    return made


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, subject: Subject) -> Subject:
    """The subject, whose sessions open in one of the ways to run our operators."""
    if request.param != "library":
        request.getfixturevalue("no_library")
    subject.generators.clear()
    return subject


def test_logits(way: Subject) -> None:
    assert difference(way.by_steps(), way.compared) <= TOLERANCE
    count = way.case.target // 2
    found = list(way.in_one_pass(count))
    assert difference(found, [row[count - 1] for row in way.compared]) <= TOLERANCE
    assert difference(way.by_steps("all"), way.compared) <= TOLERANCE
    alone = way.alone(0)
    assert difference(alone.by_steps(), alone.compared) <= TOLERANCE


@pytest.mark.parametrize("beams", [1, 4])
def test_tokens(way: Subject, beams: int) -> None:
    expected = way.oracle.generate(way.inputs, beams)
    for stages in (None, "all"):
        results = way.generator(stages).generate(
            way.inputs, max_new_tokens=NEW_TOKENS, num_beams=beams
        )
        assert [result.tokens for result in results] == expected


@pytest.mark.parametrize(("scheme", "method"), [("cb4", "kmeans"), ("int8", "rtn")])
def test_every_format_passes_its_check(
    subject: Subject, tmp_path: Path, scheme: str, method: str
) -> None:
    """With inputs rounded to int8, where there is a library; and with standard attention."""
    export_checkpoint(subject.checkpoint, tmp_path / "fused", quant=scheme, method=method)
    out = tmp_path / "portable"
    export_checkpoint(
        subject.checkpoint, out, quant=scheme, method=method, portable=True, compute="int8-block"
    )
