"""The rewired decoder against NumPy, on a toy of optimum's form; needs no optimum."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import GraphBuilder

from edgedec.errors import CheckpointError
from edgedec.export.rewire import Caches, read_caches, rewire_decoder

HEADS, DIM, VOCAB = 2, 3, 11
WIDTH = HEADS * DIM
RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(VOCAB, WIDTH)).astype(np.float32)
PLACES = RNG.normal(size=(32, WIDTH)).astype(np.float32)
FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def toy(*, extra_input: bool = False) -> ir.Graph:
    """New keys are the tokens' embeddings, new values the positions'; logits score their sum.

    ``logits[b, t] = (token + sum of all unmasked keys + 2 sum of values) @ TOKENS.T``: a tied head
    that was folded to a transposed copy, as torch's exporter does.
    """
    graph = ir.Graph([], [], nodes=[], name="toy", opset_imports={"": 24})
    build = GraphBuilder(graph)
    op = build.op
    ids = build.input("input_ids", INT64, ["B", "T"])
    mask = build.input("attention_mask", INT64, ["B", "N"])
    places = build.input("position_ids", INT64, ["B", "T"])
    past = [
        build.input(f"past_key_values.0.{part}", FLOAT, ["B", HEADS, "P", DIM])
        for part in ("key", "value")
    ]
    if extra_input:
        build.input("global_mask", INT64, ["B", "T"])
    table = build.initializer(ir.tensor(TOKENS, name="embedding"), "embedding")
    rows = build.initializer(ir.tensor(PLACES, name="places"), "places")
    new = [op.Gather(table, ids), op.Gather(rows, places)]
    joined = []
    for old, value, part in zip(past, new, ("key", "value"), strict=True):
        heads = op.Transpose(op.Reshape(value, [0, 0, HEADS, DIM]), perm=[0, 2, 1, 3])
        both = op.Concat(old, heads, axis=2)
        both.name, both.dtype = f"present.0.{part}", FLOAT
        joined.append(both)
    seen = op.Unsqueeze(op.Cast(mask, to=FLOAT), [1, 3])
    mixed = op.Mul(op.Add(joined[0], op.Add(joined[1], joined[1])), seen)
    total = op.Reshape(op.ReduceSum(mixed, [2], keepdims=0), [0, 1, WIDTH])
    turned = build.initializer(ir.tensor(np.ascontiguousarray(TOKENS.T), name="head"), "head")
    logits = op.MatMul(op.Add(new[0], total), turned)
    logits.name, logits.dtype = "logits", FLOAT
    graph.outputs.extend([logits, *joined])
    for value in list(graph.initializers.values()):
        if str(value.name).startswith("const"):
            value.name = f"toy.{value.name}"  # two builders would number theirs alike
    return graph


def test_rows_of_different_lengths() -> None:
    graph = toy()
    caches = read_caches(graph)
    assert caches == Caches(layers=1, heads=HEADS, head_dim=DIM)
    rewire_decoder(graph, caches, VOCAB)
    model = ir.Model(graph, ir_version=11)
    RemoveUnusedNodesPass()(model)
    assert "embedding" in graph.initializers
    assert "head" not in graph.initializers  # the tied head reads the embedding
    data = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    lengths = np.array([5, 0, 2])
    past = {part: RNG.normal(size=(3, 9, WIDTH)).astype(np.float32) for part in ("key", "value")}
    ids, places = np.array([[1, 2], [3, 4], [5, 6]]), lengths[:, None] + np.arange(2)
    token, logits, key, value = session.run(
        ["next_token", "logits", "present.0.self.key", "present.0.self.value"],
        {
            "input_ids": ids,
            "past_length": lengths,
            "positions": places,
            "logit_positions": np.array([[1], [0], [1]]),
            **{f"past.0.self.{part}": array for part, array in past.items()},
        },
    )
    for row, (length, picked) in enumerate(zip(lengths, (1, 0, 1), strict=True)):
        written = slice(length, length + 2)
        expected_key, expected_value = past["key"][row].copy(), past["value"][row].copy()
        expected_key[written], expected_value[written] = TOKENS[ids[row]], PLACES[places[row]]
        np.testing.assert_array_equal(key[row], expected_key)
        np.testing.assert_array_equal(value[row], expected_value)
        live = expected_key[: length + 2] + 2 * expected_value[: length + 2]
        expected = (TOKENS[ids[row, picked]] + live.sum(0)) @ TOKENS.T
        np.testing.assert_allclose(logits[row, 0], expected, rtol=1e-4, atol=1e-4)
        assert token[row, 0] == expected.argmax()


def test_inputs_that_nobody_feeds() -> None:
    graph = toy(extra_input=True)
    with pytest.raises(CheckpointError, match="wants global_mask"):
        rewire_decoder(graph, read_caches(graph), VOCAB)


def test_caches_of_another_form() -> None:
    graph = ir.Graph([], [], nodes=[], name="toy", opset_imports={"": 24})
    GraphBuilder(graph).input("past_key_values.0.key_value", FLOAT, ["B", "P", 12])
    with pytest.raises(CheckpointError, match="caches"):
        read_caches(graph)
