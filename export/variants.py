"""Graphs that only depth policies use: cheaper variants of a stage, confidence, routers.

Names, shapes and types are in ``docs/bundle.md``. A variant's weights have the names of the full
stage, and their bytes, so that a bundle stores them once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgedec.export.blocks.attention import KeyValue, Layer
from edgedec.export.blocks.builder import Builder
from edgedec.export.blocks.layers import fill_layer, low_rank_layer
from edgedec.export.blocks.positions import RotaryAngles
from edgedec.export.spec import ModelSpec, Rotary
from edgedec.export.weights import Weights

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
ALWAYS = 30.0
"""Bias of a layer without a router: its score is 1 to within float32."""


def fill_graph(b: Builder, spec: ModelSpec, layers: range) -> None:
    """Emit a stage's state propagation: keys and values of one hidden state, in every layer.

    Inputs: ``hidden [B, T', d_model]``, ``past_length [B]``, ``positions [B, T']`` (rotary models)
    and ``past.{i}.self.{key,value}``, as the stage has them. Outputs:
    ``present.{i}.self.{key,value}``.
    """
    cached = _Cached(b, spec, layers)
    for i in layers:
        with b.scope("decoder", i):
            cached.write(i, cached.hidden)
    cached.emit()


def low_rank_graph(b: Builder, spec: ModelSpec, layers: range) -> None:
    """Emit a stage whose layers give their anchor's output with a low-rank correction.

    Inputs: as `fill_graph`, and ``anchor.{i} [B, 1, d_model]``, what each layer gave at the row's
    last full pass. Outputs: ``hidden_out [B, T', d_model]`` and ``present.{i}.self.{key,value}``.
    """
    cached = _Cached(b, spec, layers)
    x = cached.hidden
    for i in layers:
        anchor = b.input(f"anchor.{i}", FLOAT, ["batch", 1, spec.d_model])
        with b.scope("decoder", i):
            cached.write(i, x)
            x = low_rank_layer(cached.layer, x, anchor)
    b.output("hidden_out", x, FLOAT, ["batch", "new", spec.d_model])
    cached.emit()


class _Cached:
    """What both variants share: the inputs of the stage, and the caches as they become."""

    def __init__(self, b: Builder, spec: ModelSpec, layers: range) -> None:
        stack = spec.decoder
        self._b, self._layers = b, layers
        self._shape: list[str | int] = ["batch", "capacity", stack.kv_width]
        self.hidden = b.input("hidden", FLOAT, ["batch", "new", spec.d_model])
        self._past_length = b.input("past_length", INT64, ["batch"])
        rotary = None
        if isinstance(stack.positions, Rotary):
            positions = b.input("positions", INT64, ["batch", "new"])
            with b.scope("decoder"):
                rotary = RotaryAngles(b, stack.positions, positions)
        self._past = {
            i: (
                b.input(f"past.{i}.self.key", FLOAT, self._shape),
                b.input(f"past.{i}.self.value", FLOAT, self._shape),
            )
            for i in layers
        }
        self._present: dict[int, KeyValue] = {}
        self.layer = Layer(b, stack, spec.d_model, None, rotary)

    def write(self, i: int, x: ir.Value) -> None:
        """Write layer ``i``'s keys and values of ``x``; the scope is the layer."""
        self._present[i] = fill_layer(self.layer, x, self._past[i], self._past_length)

    def emit(self) -> None:
        """Declare the caches as outputs."""
        for i in self._layers:
            for part, value in zip(("key", "value"), self._present[i], strict=True):
                self._b.output(f"present.{i}.self.{part}", value, FLOAT, self._shape)


def meta_graph(b: Builder, spec: ModelSpec) -> None:
    """Emit the confidence classifier: linear (CALM, arXiv 2207.07061), or FREE's two layers.

    Input: ``hidden [B, T', d_model]``. Output: ``confidence [B, T']``, from 0 to 1.
    """
    width = spec.d_model
    hidden = b.input("hidden", FLOAT, ["batch", "new", width])
    with b.scope("meta"):
        if b.has("weight"):
            score = _score(b, hidden, b.vector("weight", (1, width)), b.vector("bias", (1,)))
            confidence = b.op("Sigmoid", score, name="confidence")
        else:
            first = b.weight("0.weight", (width, width), transpose=True)
            second = b.weight("2.weight", (2, width), transpose=True)
            inner = b.op("Relu", b.op("MatMul", hidden, first, name="0"), name="act")
            both = b.op("Softmax", b.op("MatMul", inner, second, name="2"), axis=-1, name="both")
            confidence = b.op("Gather", both, 1, axis=-1, name="confidence")
    b.output("confidence", confidence, FLOAT, ["batch", "new"])


def router_graph(b: Builder, spec: ModelSpec, weights: Weights, layers: frozenset[int]) -> None:
    """Emit all routers as one table (FiRST, arXiv 2410.12513); of other layers it says 1.

    Inputs: ``hidden [B, T', d_model]``, ``layer [1]`` int64. Output: ``score [B, T']`` from 0 to 1.
    """
    width, count = spec.d_model, spec.decoder.layers
    table = np.zeros((count, width), np.float32)
    biases = np.full(count, ALWAYS, np.float32)
    for i in layers:
        table[i] = weights.expect(f"router.{i}.weight", (1, width)).read()[0]
        biases[i] = 0.0
        if f"router.{i}.bias" in weights:
            biases[i] = weights.expect(f"router.{i}.bias", (1,)).read()[0]
    hidden = b.input("hidden", FLOAT, ["batch", "new", width])
    layer = b.input("layer", INT64, [1])
    with b.scope("router"):
        weight = b.op("Gather", b.table("weight", table), layer, axis=0, name="weight.row")
        bias = b.op("Gather", b.table("bias", biases), layer, axis=0, name="bias.row")
        score = b.op("Sigmoid", _score(b, hidden, weight, bias), name="score")
    b.output("score", score, FLOAT, ["batch", "new"])


def _score(b: Builder, hidden: ir.Value, weight: ir.Value, bias: ir.Value) -> ir.Value:
    """``hidden [B, T', d] . weight [1, d] + bias [1]`` as ``[B, T']``."""
    product = b.op("ReduceSum", b.op("Mul", hidden, weight), [-1], keepdims=0, name="product")
    return b.op("Add", product, bias, name="sum")
