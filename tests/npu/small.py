"""A small encoder-decoder of fixed shapes with random weights, as lowering leaves it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgedec.devices.npu.model import MASKED, StaticModel
from edgedec.runtime.manifest import BiasTable, Static, StaticDecoder, StaticEncoder

Array = NDArray[Any]
HEADS, HEAD, WIDTH, HIDDEN, VOCABULARY, SOURCE, PAST = 2, 16, 32, 64, 40, 6, 7
CACHE = (1, HEADS, HEAD, PAST), (1, HEADS, PAST, HEAD)
CROSS = (1, HEADS, HEAD, SOURCE), (1, HEADS, SOURCE, HEAD)


class _Builder:
    """Nodes, inputs and weights of a graph."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def add(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: Array) -> str:
        self.constants[name] = values
        return name

    def random(self, name: str, *shape: int, scale: float | None = None) -> str:
        # by name, so that two graphs agree
        rng = np.random.default_rng(list(name.encode()))
        values = rng.standard_t(5, size=shape) * (scale or shape[0] ** -0.5)
        return self.constant(name, values.astype(np.float32))

    def input(self, name: str, shape: tuple[int, ...], dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, shape: tuple[int, ...], dtype: int = TensorProto.FLOAT) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def linear(self, x: str, name: str, columns: int, rows: int, output: str | None = None) -> str:
        weight = self.random(f"{name}.weight", columns, rows)
        bias = self.style == "bart"
        y = self.add("MatMul", [x, weight], output if output and not bias else name)
        if bias:
            added = self.random(f"{name}.bias", rows, scale=0.1)
            y = self.add("Add", [y, added], output or f"{name}.biased")
        return y

    def norm(self, x: str, name: str) -> str:
        scale = self.constant(f"{name}.weight", np.linspace(0.5, 1.5, WIDTH, dtype=np.float32))
        if self.style == "t5":
            return self.add("RMSNormalization", [x, scale], name, axis=-1, epsilon=1e-6)
        bias = self.random(f"{name}.bias", WIDTH, scale=0.1)
        return self.add("LayerNormalization", [x, scale, bias], name, axis=-1, epsilon=1e-5)

    def reshape(self, x: str, name: str, *shape: int) -> str:
        size = self.constant("shape_" + "_".join(map(str, shape)), np.array(shape, np.int64))
        return self.add("Reshape", [x, size], name)

    def split(self, x: str, name: str, tokens: int, *, transposed: bool = False) -> str:
        if tokens == 1:
            return self.reshape(x, name, 1, HEADS, *((HEAD, 1) if transposed else (1, HEAD)))
        heads = self.reshape(x, f"{name}.split", 1, tokens, HEADS, HEAD)
        return self.add(
            "Transpose", [heads], name, perm=[0, 2, 3, 1] if transposed else [0, 2, 1, 3]
        )

    def attend(self, q: str, k: str, v: str, bias: str, name: str, tokens: int) -> str:
        scale = self.constant("scale", np.array(HEAD**-0.5, np.float32))
        q = self.add("Mul", [q, scale], f"{name}.scaled")
        scores = self.add("MatMul", [q, k], f"{name}.scores")
        scores = self.add("Add", [scores, bias], f"{name}.masked")
        weights = self.add("Softmax", [scores], f"{name}.weights", axis=-1)
        y = self.add("MatMul", [weights, v], f"{name}.mixed")
        if tokens > 1:
            y = self.add("Transpose", [y], f"{name}.rows", perm=[0, 2, 1, 3])
        y = self.reshape(y, f"{name}.joined", 1, tokens, WIDTH)
        return self.linear(y, f"{name}.o", WIDTH, WIDTH)

    def mlp(self, x: str, name: str) -> str:
        y = self.linear(x, f"{name}.up", WIDTH, HIDDEN)
        y = self.add("Relu" if self.style == "t5" else "Gelu", [y], f"{name}.act")
        return self.linear(y, f"{name}.down", HIDDEN, WIDTH)

    def model(self, name: str) -> ir.Model:
        constants = [numpy_helper.from_array(v, k) for k, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model)
        return ir.serde.deserialize_model(model)


def encoder(style: str) -> ir.Model:
    b = _Builder(style)
    ids = b.input("input_ids", (1, SOURCE), TensorProto.INT32)
    bias = b.input("self.bias", (1, HEADS, SOURCE, SOURCE))
    x = b.add(
        "Gather",
        [b.random("encoder.embed.weight", VOCABULARY, WIDTH, scale=1.0), ids],
        "encoder.embed",
    )
    p = "encoder.0.self_attn"
    h = b.norm(x, f"{p}.norm")
    q, k, v = (b.linear(h, f"{p}.{part}", WIDTH, WIDTH) for part in "qkv")
    y = b.attend(
        b.split(q, f"{p}.q.heads", SOURCE),
        b.split(k, f"{p}.k.heads", SOURCE, transposed=True),
        b.split(v, f"{p}.v.heads", SOURCE),
        bias,
        p,
        SOURCE,
    )
    x = b.add("Add", [x, y], f"{p}.residual")
    x = b.add(
        "Add",
        [x, b.mlp(b.norm(x, "encoder.0.mlp.norm"), "encoder.0.mlp")],
        "encoder.0.mlp.residual",
    )
    x = b.norm(x, "encoder.norm")
    for part, name, shape in zip("kv", ("key", "value"), CROSS, strict=True):
        y = b.linear(x, f"decoder.0.cross_attn.{part}", WIDTH, WIDTH)
        b.split(y, f"cross.0.{name}", SOURCE, transposed=part == "k")
        b.output(f"cross.0.{name}", shape)
    return b.model("encoder")


def decoder(style: str) -> ir.Model:
    b = _Builder(style)
    ids = b.input("input_ids", (1, 1), TensorProto.INT32)
    bias = b.input("self.bias", (1, HEADS, 1, PAST + 1))
    cross_bias = b.input("cross.bias", (1, 1, 1, SOURCE))
    past = [b.input(f"past.0.self.{n}", s) for n, s in zip(("key", "value"), CACHE, strict=True)]
    cross = [b.input(f"cross.0.{n}", s) for n, s in zip(("key", "value"), CROSS, strict=True)]
    table = b.random("decoder.embed.weight", VOCABULARY, WIDTH, scale=1.0)
    x = b.add("Gather", [table, ids], "decoder.embed")
    p = "decoder.0.self_attn"
    h = b.norm(x, f"{p}.norm")
    q = b.linear(h, f"{p}.q", WIDTH, WIDTH)
    k = b.linear(h, f"{p}.k", WIDTH, WIDTH, output="new.0.self.key")
    v = b.linear(h, f"{p}.v", WIDTH, WIDTH, output="new.0.self.value")
    keys = b.add(
        "Concat", [past[0], b.split(k, f"{p}.k.heads", 1, transposed=True)], f"{p}.keys", axis=3
    )
    values = b.add("Concat", [past[1], b.split(v, f"{p}.v.heads", 1)], f"{p}.values", axis=2)
    y = b.attend(b.split(q, f"{p}.q.heads", 1), keys, values, bias, p, 1)
    x = b.add("Add", [x, y], f"{p}.residual")
    p = "decoder.0.cross_attn"
    q = b.linear(b.norm(x, f"{p}.norm"), f"{p}.q", WIDTH, WIDTH)
    y = b.attend(b.split(q, f"{p}.q.heads", 1), cross[0], cross[1], cross_bias, p, 1)
    x = b.add("Add", [x, y], f"{p}.residual")
    x = b.add(
        "Add",
        [x, b.mlp(b.norm(x, "decoder.0.mlp.norm"), "decoder.0.mlp")],
        "decoder.0.mlp.residual",
    )
    x = b.norm(x, "decoder.norm")
    if style == "t5":
        rows = b.reshape(x, "head.rows", 1, WIDTH)
        head = b.random("head.weight", VOCABULARY, WIDTH, scale=WIDTH**-0.5)
        logits = b.reshape(
            b.add("Gemm", [rows, head], "head", transB=1), "logits", 1, 1, VOCABULARY
        )
    else:
        logits = b.linear(x, "head", WIDTH, VOCABULARY, output="logits")
    choice = b.add("ArgMax", [logits], "head.choice", axis=-1, keepdims=0)
    b.add("Cast", [choice], "next_token", to=TensorProto.INT32)
    b.output("next_token", (1, 1), TensorProto.INT32)
    b.output("logits", (1, 1, VOCABULARY))
    b.output("new.0.self.key", (1, 1, WIDTH))
    b.output("new.0.self.value", (1, 1, WIDTH))
    return b.model("decoder")


def static_model(style: str = "t5") -> StaticModel:
    """The model: like T5 (RMSNorm, ReLU, Gemm as head) or BART (LayerNorm, biases, GELU)."""
    static = Static(
        kv_heads=HEADS,
        encoder=StaticEncoder(SOURCE, BiasTable("encoder.bias.bin", HEADS, SOURCE)),
        decoder=StaticDecoder(
            SOURCE, PAST, 1, None, None, BiasTable("decoder.bias.bin", HEADS, PAST + 1)
        ),
    )
    return StaticModel({"encoder": encoder(style), "decoder": decoder(style)}, static, {})


def feeds(component: str, seed: int) -> dict[str, Array]:
    """Inputs of a graph: tokens, biases with a part masked, caches of unit size."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    def masked(*shape: int) -> Array:
        bias = normal(*shape)
        bias[..., 1 + int(rng.integers(shape[-1] - 2)) : -1] = MASKED
        return bias

    if component == "encoder":
        ids = rng.integers(VOCABULARY, size=(1, SOURCE)).astype(np.int32)
        return {"input_ids": ids, "self.bias": masked(1, HEADS, SOURCE, SOURCE)}
    caches = {f"past.0.self.{n}": normal(*s) for n, s in zip(("key", "value"), CACHE, strict=True)}
    cross = {f"cross.0.{n}": normal(*s) for n, s in zip(("key", "value"), CROSS, strict=True)}
    return {
        "input_ids": rng.integers(VOCABULARY, size=(1, 1)).astype(np.int32),
        "self.bias": masked(1, HEADS, 1, PAST + 1),
        "cross.bias": masked(1, 1, 1, SOURCE),
        **caches,
        **cross,
    }
