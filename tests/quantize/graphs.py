"""Graphs to walk through, and how to run them whole."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgedec.builtin import builtin_checkpoint
from edgedec.devices.passes.embedding import Embedding, find_embeddings
from edgedec.devices.passes.linear import Linear, find_linears
from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.families import open_model
from edgedec.export.graphs import model_graphs, parse_stages
from edgedec.export.weights import Tensor
from edgedec.quantize.calibration.segments import Program, cut
from edgedec.quantize.text.batches import Batch, make_batches
from edgedec.quantize.text.samples import Sample

Array = NDArray[np.float32]
Graphs = dict[str, ir.Model]
T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 40,
    "d_model": 32,
    "d_kv": 8,
    "num_heads": 4,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def g2p(stages: str | None = None) -> Graphs:
    """The built-in encoder-decoder."""
    folder = builtin_checkpoint("g2p")
    assert folder is not None
    checkpoint = open_checkpoint(str(folder), None)
    return _graphs(checkpoint.config, checkpoint.tensors, stages)


def t5(stages: str | None = None) -> Graphs:
    """A small encoder-decoder with random weights."""
    width, inner = T5["d_model"], T5["d_ff"]
    shapes: dict[str, tuple[int, ...]] = {"shared": (T5["vocab_size"], width)}
    for stack, kinds in {
        "encoder": ("SelfAttention", "DenseReluDense"),
        "decoder": ("SelfAttention", "EncDecAttention", "DenseReluDense"),
    }.items():
        shapes[f"{stack}.final_layer_norm"] = (width,)
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        shapes[table] = (T5["relative_attention_num_buckets"], T5["num_heads"])
        for i in range(T5["num_layers"]):
            for j, kind in enumerate(kinds):
                layer = f"{stack}.block.{i}.layer.{j}"
                shapes[f"{layer}.layer_norm"] = (width,)
                if kind == "DenseReluDense":
                    shapes[f"{layer}.{kind}.wi"] = (inner, width)
                    shapes[f"{layer}.{kind}.wo"] = (width, inner)
                else:
                    shapes |= {f"{layer}.{kind}.{part}": (width, width) for part in "qkvo"}
    return _random_graphs(T5, shapes, stages)


def llama(stages: str | None = None) -> Graphs:
    """A small decoder-only model with random weights."""
    width, inner, kv = LLAMA["hidden_size"], LLAMA["intermediate_size"], 16
    vocab = LLAMA["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (vocab, width),
        "lm_head": (vocab, width),
        "model.norm": (width,),
    }
    for i in range(LLAMA["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{p}_proj": (width, width) for p in "qo"}
        shapes |= {f"{layer}.self_attn.{p}_proj": (kv, width) for p in "kv"}
        shapes |= {f"{layer}.mlp.{p}_proj": (inner, width) for p in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj"] = (width, inner)
        shapes[f"{layer}.input_layernorm"] = (width,)
        shapes[f"{layer}.post_attention_layernorm"] = (width,)
    return _random_graphs(LLAMA, shapes, stages)


def program(graphs: Graphs) -> Program:
    """The graphs, cut at every matrix."""
    return cut(graphs, sites(graphs))


def sites(graphs: Graphs) -> dict[str, list[Linear | Embedding]]:
    """Every matrix of the graphs."""
    return {n: [*find_embeddings(m.graph), *find_linears(m.graph)] for n, m in graphs.items()}


def batches(graphs: Graphs, *, count: int = 12, tokens: int = 64, seed: int = 0) -> list[Batch]:
    """Random sequences of unequal lengths."""
    return make_batches(
        samples(graphs, count=count, seed=seed),
        pad=0,
        start=0 if "encoder" in graphs else None,
        tokens=tokens,
    )


def samples(graphs: Graphs, *, count: int = 12, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)

    def row(most: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, 40, rng.integers(2, most)).tolist())

    return [Sample(row(12) if "encoder" in graphs else None, row(20)) for _ in range(count)]


def run_whole(graphs: Graphs, text: Sequence[Batch], output: str = "logits") -> list[Array]:
    """An output of every batch, graph by graph."""
    found: list[dict[str, NDArray[Any]]] = [{} for _ in text]
    for model in graphs.values():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            ir.serde.serialize_model(model).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        names = [str(value.name) for value in model.graph.outputs]
        for batch, known in zip(text, found, strict=True):
            if "hidden_out" in known:
                known["hidden"] = known["hidden_out"]
            inputs = batch.feeds([v for v in model.graph.inputs if v.name not in known])
            inputs |= {
                str(v.name): known[str(v.name)] for v in model.graph.inputs if v.name in known
            }
            known |= dict(zip(names, session.run(names, inputs), strict=True))
    return [known[output] for known in found]


def with_weights(graphs: Graphs, values: Mapping[str, Array]) -> Graphs:
    """The graphs with other values ``[rows, columns]`` of the named matrices."""
    found = {site.matrix.name: site.matrix for those in sites(graphs).values() for site in those}
    for name, array in values.items():
        matrix = found[name]
        stored = np.ascontiguousarray(array.T if matrix.transposed else array)
        matrix.stored.const_value = ir.tensor(stored, name=name)
    return graphs


def noise(name: str, values: Array, size: float = 0.1) -> Array:
    """The same values with noise that depends on their name only."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noisy: Array = values + size * values.std() * rng.standard_normal(values.shape, np.float32)
    return noisy


def _graphs(config: Any, tensors: Any, stages: str | None) -> Graphs:
    spec, weights = open_model(config, tensors)
    builders = model_graphs(spec, weights, parse_stages(stages, spec.decoder.layers), "fp32")
    return {name: builder.model("edgedec", "0") for name, builder in builders.items()}


def _random_graphs(
    config: Any, shapes: Mapping[str, tuple[int, ...]], stages: str | None
) -> Graphs:
    tensors = {f"{name}.weight": _random(f"{name}.weight", shape) for name, shape in shapes.items()}
    return _graphs(config, tensors, stages)


def _random(name: str, shape: tuple[int, ...]) -> Tensor:
    def load() -> Array:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = rng.standard_normal(shape, np.float32)
        return 1 + 0.2 * values if len(shape) == 1 else values * np.float32(1.5 * shape[1] ** -0.5)

    return Tensor(name, shape, "float32", load)
