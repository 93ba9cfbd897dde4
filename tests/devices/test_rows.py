"""Sums with their norm, and the greedy choice: what becomes an operator of ours."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from tests.devices.models import CLOSE, WAYS, deepcopy_model, graph, lower, operators, run

RNG = np.random.default_rng(3)
NORM = """
g (float[b, t, 24] x, float[b, t, 24] delta) => (float[b, t, 24] y, float[b, t, 24] next) {
    sum = Add (x, delta)
    n = RMSNormalization <axis = -1, epsilon = 0.001> (sum, scale) # decoder.0.mlp.norm
    y = Relu (n)
    next = Tanh (sum)
}
"""
CHOICE = """
g (float[b, p, 24] logits) => (int64[b, p] token) {
    token = ArgMax <axis = -1, keepdims = 0> (logits) # head.next_token
}
"""


def floats(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def same(model: ir.Model, feeds: dict[str, NDArray[np.float32]]) -> ir.Model:
    """The graph lowered, once it is shown to compute the same."""
    expected = run(model, feeds)
    lowered = deepcopy_model(model)
    lower(lowered)
    for library in WAYS:
        for found, wanted in zip(run(lowered, feeds, library=library), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=CLOSE, rtol=0)
    return lowered


def norm(text: str = NORM, width: int = 24) -> ir.Model:
    model = graph(text, scale=(width,))
    (total,) = [node for node in model.graph if node.op_type == "Add"]
    total.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    total.outputs[0].shape = ir.Shape(["b", "t", 24])
    return model


def test_a_sum_and_its_norm() -> None:
    given = {"x": floats(2, 3, 24), "delta": floats(2, 3, 24)}
    lowered = same(norm(), given)
    assert operators(lowered) == ["edgedec::AddRMSNorm", "Relu", "Tanh"]
    node = lowered.graph[0]
    assert node.name == "decoder.0.mlp.norm"
    assert node.attributes["epsilon"].as_float() == pytest.approx(0.001)


def test_a_sum_that_is_an_output() -> None:
    text = NORM.replace("next = Tanh (sum)", "").replace("24] next)", "24] sum)")
    lowered = same(norm(text), {"x": floats(2, 3, 24), "delta": floats(2, 3, 24)})
    assert [v.name for v in lowered.graph.outputs] == ["y", "sum"]
    assert operators(lowered) == ["edgedec::AddRMSNorm", "Relu"]


def test_two_norms_of_one_sum() -> None:
    text = NORM.replace(
        "next = Tanh (sum)", "next = RMSNormalization <axis = -1, epsilon = 0.001> (sum, scale)"
    )
    lowered = same(norm(text), {"x": floats(2, 3, 24), "delta": floats(2, 3, 24)})
    assert operators(lowered).count("edgedec::AddRMSNorm") == 1
    assert operators(lowered).count("RMSNormalization") == 1


NORMS = {
    "a number is added": ("float[b, t, 24] delta", "float[1, 24] delta"),
    "another axis": ("axis = -1", "axis = 1"),
    "no sum": ("Add (x, delta)", "Mul (x, delta)"),
}


@pytest.mark.parametrize("kind", NORMS)
def test_other_norms_stay(kind: str) -> None:
    old, new = NORMS[kind]
    assert old in NORM
    model = graph(NORM.replace(old, new), scale=(24,))
    for node in model.graph:
        if node.op_type == "Add":
            node.outputs[0].shape = ir.Shape(["b", "t", 24])
    before = operators(model)
    lower(model)
    assert operators(model) == before


@pytest.mark.parametrize("axis", [-1, 2])
def test_the_choice(axis: int) -> None:
    logits = floats(2, 3, 24)
    logits[0, 1, [4, 9]] = 50  # the first of equal ones
    lowered = same(graph(CHOICE.replace("-1", str(axis))), {"logits": logits})
    assert operators(lowered) == ["edgedec::ArgMax"]
    assert lowered.graph[0].name == "head.next_token"


@pytest.mark.parametrize(
    "change",
    [
        ("axis = -1", "axis = 1"),
        ("keepdims = 0", "keepdims = 1"),
        ("0>", "0, select_last_index = 1>"),
    ],
)
def test_other_choices_stay(change: tuple[str, str]) -> None:
    model = graph(CHOICE.replace(*change))
    lower(model)
    assert operators(model) == ["ArgMax"]


def test_portable_graphs_keep_both() -> None:
    for model in (norm(), graph(CHOICE)):
        before = operators(model)
        lower(model, portable=True)
        assert operators(model) == before
