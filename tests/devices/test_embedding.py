"""Token embeddings: what becomes CodebookGather, and what a tied head shares with it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.devices.models import codes_of, graph, lower, lowered_like, nodes, operators

from edgedec.quantize.baselines.nearest import round_to_nearest
from edgedec.quantize.codebook import BITS, CodebookTensor
from edgedec.quantize.matrices import Matrix

IDS = np.array([[0, 39, 7], [1, 1, 20]], np.int64)
LOOKUP = "edgedec::CodebookGather"


@pytest.mark.parametrize("way", ["input_ids", "Reshape (input_ids, shape)"])
@pytest.mark.parametrize("bits", BITS)
def test_the_embedding(way: str, bits: int) -> None:
    text = f"""
    g (int64[b, t] input_ids) => (float[b, t, 24] y) {{
        shape = Constant <value = int64[2] {{-1, 3}}> ()
        ids = {way if "(" in way else f"Identity ({way})"}
        y = Gather (w, ids) # decoder.embed
    }}
    """
    model = graph(text, w=(40, 24))
    (matrix,) = lowered_like(model, {"input_ids": IDS}, codes_of(bits))
    assert operators(model)[-1] == LOOKUP
    assert (matrix.name, matrix.packed.bits) == ("decoder.embed", bits)
    (node,) = nodes(model, "CodebookGather")
    assert node.attributes["K"].as_int() == 24


STAYS = {
    "positions": ("(int64[b, t] positions)", "y = Gather (w, positions)"),
    "tokens of another name": ("(int64[b, t] other)", "y = Gather (w, other)"),
    "positions from tokens": (
        "(int64[b, t] input_ids)",
        "one = Constant <value_int = 1> ()\n ids = Add (input_ids, one)\n y = Gather (w, ids)",
    ),
    "columns": ("(int64[b, t] input_ids)", "y = Gather <axis = 1> (w, input_ids)"),
    "narrow tokens": ("(int32[b, t] input_ids)", "y = Gather (w, input_ids)"),
}


@pytest.mark.parametrize("kind", STAYS)
def test_other_tables_stay(kind: str) -> None:
    inputs, text = STAYS[kind]
    model = graph(f"g {inputs} => (float[b, t, k] y) {{\n {text} \n}}", w=(40, 24))
    assert lower(model) == []
    assert operators(model)[-1] == "Gather"


TIED = """
g (int64[b, t] input_ids) => (float[b, t, 40] logits) {
    flat = Constant <value = int64[2] {-1, 24}> ()
    x = Gather (w, input_ids) # decoder.embed
    h = Tanh (x)
    rows = Reshape (h, flat)
    found = Gemm <transB=1> (rows, v) # head
    shape = Constant <value = int64[3] {2, 3, 40}> ()
    logits = Reshape (found, shape)
}
"""


def tied(matrix: Matrix) -> CodebookTensor:
    """The same object for the same values, as the exporter's quantizer gives it."""
    key = matrix.read().tobytes()
    return _TENSORS.setdefault(key, round_to_nearest(matrix.read()))


_TENSORS: dict[bytes, CodebookTensor] = {}


def test_a_tied_head_reads_the_same_initializers() -> None:
    model = graph(TIED, w=(40, 24))
    weights = model.graph.initializers["w"]
    head = next(node for node in model.graph if node.op_type == "Gemm")
    head.replace_input_with(1, weights)
    matrices = lowered_like(model, {"input_ids": IDS}, tied)
    (gather,), (product,) = nodes(model, "CodebookGather"), nodes(model, "CodebookMatMul")
    assert list(gather.inputs[1:5]) == list(product.inputs[1:5])
    assert matrices[0].packed is matrices[1].packed
    assert sum(name.endswith(".codes") for name in model.graph.initializers) == 1
    codes = model.graph.initializers["decoder.embed.codes"]
    assert codes.meta["parameters"] == 40 * 24


def test_an_untied_head_has_its_own() -> None:
    model = graph(TIED, w=(40, 24), v=(40, 24))
    lowered_like(model, {"input_ids": IDS}, tied)
    assert sum(name.endswith(".codes") for name in model.graph.initializers) == 2


def test_an_order_of_rows() -> None:
    order = np.random.default_rng(0).permutation(40).astype(np.int32)

    def shuffled(matrix: Matrix) -> CodebookTensor:
        tensor = round_to_nearest(matrix.read()[order])
        return CodebookTensor(
            tensor.codes, tensor.codebooks, tensor.row_scale, tensor.group_of_row, 8, order
        )

    text = "g (int64[b, t] input_ids) => (float[b, t, 24] y) {\n y = Gather (w, input_ids) \n}"
    model = graph(text, w=(40, 24))
    lowered_like(model, {"input_ids": IDS}, shuffled)
    assert len(nodes(model, "CodebookGather")[0].inputs) == 6
