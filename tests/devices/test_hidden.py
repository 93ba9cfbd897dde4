"""Hidden units that change places: what a graph computes must not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tests.devices.models import Array, graph

from edgedec.devices.passes.hidden import find_hidden, reorder
from edgedec.devices.passes.linear import find_linears

UP = "up = MatMul (x, up.weight) # up"
DOWN = "y = MatMul (inner, down.weight) # down"
BLOCKS = {
    "relu": (f"{UP}\ninner = Relu (up)\n{DOWN}", 1),
    "biases": (f"{UP}\nsum = Add (bias, up)\ninner = Relu (sum)\n{DOWN}", 1),
    "gated": (
        (
            f"{UP}\ngate = MatMul (x, gate.weight) # gate\nact = Gelu (gate)\n"
            f"inner = Mul (act, up)\n{DOWN}"
        ),
        2,
    ),
    "spelled out": (
        (
            f"{UP}\ns = Sigmoid (up)\nact = Mul (s, up)\nhalf = Constant <value_float = 0.5> ()\n"
            f"inner = Mul (act, half)\n{DOWN}"
        ),
        1,
    ),
    "Gemm": (
        (
            "flat = Constant <value_ints = [-1, 8]> ()\nx2 = Reshape (x, flat)\n"
            "up = Gemm <transB = 1> (x2, wide.weight, bias) # up\ninner = Tanh (up)\n"
            "z = Gemm (inner, down.weight) # down\nshape = Shape (x)\ny = Reshape (z, shape)"
        ),
        1,
    ),
}
NOT = {
    "read by others": f"{UP}\ninner = Relu (up)\nt = MatMul (inner, down.weight) # down\n"
    "o = ReduceSum (inner)\ny = Add (t, o)",
    "a residual sum": f"{UP}\nwide = Concat <axis = -1> (x, x, x)\ninner = Add (up, wide)\n{DOWN}",
    "a norm": f"{UP}\ninner = Softmax (up)\n{DOWN}",
    "a table": f"{UP}\ninner = Mul (up, bias)\n{DOWN}",
}
SHAPES = {
    "up.weight": (8, 24),
    "gate.weight": (8, 24),
    "wide.weight": (24, 8),
    "bias": (24,),
    "down.weight": (24, 8),
}


def model(body: str) -> ir.Model:
    used = {name.replace(".", "_"): shape for name, shape in SHAPES.items() if name in body}
    for name in SHAPES:
        body = body.replace(name, name.replace(".", "_"))
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return graph(f"g (float[N, T, 8] x) => (float[N, T, 8] y) {{\n{lines}\n}}", **used)


def run(m: ir.Model, x: Array) -> Array:
    session = onnxruntime.InferenceSession(ir.serde.serialize_model(m).SerializeToString())
    result: Array = session.run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("kind", BLOCKS)
def test_any_order_computes_the_same(kind: str) -> None:
    body, producers = BLOCKS[kind]
    x = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)
    made = model(body)
    before = run(made, x)
    (hidden,) = find_hidden(find_linears(made.graph))
    assert len(hidden.producers) == producers
    rows = hidden.producers[0].matrix.read()
    order = np.random.default_rng(2).permutation(24).astype(np.int32)
    reorder(hidden, order)
    np.testing.assert_array_equal(hidden.producers[0].matrix.read(), rows[order])
    np.testing.assert_allclose(run(made, x), before, atol=1e-5)


@pytest.mark.parametrize("kind", NOT)
def test_units_that_others_see_stay(kind: str) -> None:
    assert not find_hidden(find_linears(model(NOT[kind]).graph))
