"""Random Hugging Face checkpoints of known shapes, and texts for them, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

T5: dict[str, Any] = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 32128,
    "d_kv": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": True,
    "is_encoder_decoder": True,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
SHAPES: dict[str, dict[str, Any]] = {
    "t5-small": T5
    | {"d_model": 512, "d_ff": 2048, "num_heads": 8, "num_layers": 6, "num_decoder_layers": 6},
    "t5-base": T5
    | {"d_model": 768, "d_ff": 3072, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12},
    "bart-base": {
        "model_type": "bart",
        "architectures": ["BartForConditionalGeneration"],
        "vocab_size": 50265,
        "d_model": 768,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
        "activation_function": "gelu",
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
    "llama-3.2-1b": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
}
LAYERS = (
    "num_layers", "num_decoder_layers", "num_hidden_layers", "encoder_layers", "decoder_layers"
)  # fmt: skip
"""What configurations call the number of layers."""
# A random model with a tied head repeats what it reads: none of them starts with the end.
LINE = 64
"""Words of a line of the text."""

Tensors = Iterator[tuple[str, tuple[int, ...], float]]
"""Names, shapes and standard deviations; a deviation of 0 stands for a norm's ones."""


def write_checkpoint(folder: Path, shape: str, layers: int | None, tokens: int) -> Path:
    """Write a checkpoint in float16 with a tokenizer whose words are ``w2 w3 ...``.

    Args:
        folder: to write; must not exist.
        shape: one of `SHAPES`.
        layers: of each stack; None: all.
        tokens: that the text shall have at least.

    Returns:
        A text of random words, pairs of lines for an encoder-decoder.
    """
    from safetensors.numpy import save_file

    config = dict(SHAPES[shape])
    for key in LAYERS:
        if layers is not None and key in config:
            config[key] = layers
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    encodes = config.get("is_encoder_decoder", False)
    weights = {
        name: np.ones(size, np.float16)
        if std == 0
        else (random.standard_normal(size, np.float32) * np.float32(std)).astype(np.float16)
        for name, size, std in TENSORS[config["model_type"]](config)
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder / "tokenizer.json", config["vocab_size"])
    lines = []
    for _ in range(tokens // LINE + 1):
        words = random.integers(2, config["vocab_size"], (1 + encodes, LINE))
        lines.append("\t".join(" ".join(f"w{i}" for i in side) for side in words))
    text = folder.with_name("text.tsv" if encodes else "text.txt")
    text.write_text("\n".join(lines) + "\n")
    return text


def _t5(config: dict[str, Any]) -> Tensors:
    """T5's tensors, initialised as T5 is."""
    d, ff = config["d_model"], config["d_ff"]
    inner = config["num_heads"] * config["d_kv"]
    yield "shared.weight", (config["vocab_size"], d), 1.0
    for part, count in (
        ("encoder", config["num_layers"]),
        ("decoder", config["num_decoder_layers"]),
    ):
        attentions = ["SelfAttention", "EncDecAttention"][: 1 + (part == "decoder")]
        bias = f"{part}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield bias, (config["relative_attention_num_buckets"], config["num_heads"]), d**-0.5
        for i in range(count):
            for j, kind in enumerate(attentions):
                prefix = f"{part}.block.{i}.layer.{j}"
                yield f"{prefix}.layer_norm.weight", (d,), 0
                yield f"{prefix}.{kind}.q.weight", (inner, d), (d * config["d_kv"]) ** -0.5
                yield f"{prefix}.{kind}.k.weight", (inner, d), d**-0.5
                yield f"{prefix}.{kind}.v.weight", (inner, d), d**-0.5
                yield f"{prefix}.{kind}.o.weight", (d, inner), inner**-0.5
            prefix = f"{part}.block.{i}.layer.{len(attentions)}"
            yield f"{prefix}.layer_norm.weight", (d,), 0
            yield f"{prefix}.DenseReluDense.wi.weight", (ff, d), d**-0.5
            yield f"{prefix}.DenseReluDense.wo.weight", (d, ff), ff**-0.5
        yield f"{part}.final_layer_norm.weight", (d,), 0


def _llama(config: dict[str, Any]) -> Tensors:
    """Llama's tensors, as large as in its initialisation."""
    d, ff, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (config["vocab_size"], d), 0.02
    for i in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{i}"
        yield f"{prefix}.input_layernorm.weight", (d,), 0
        yield f"{prefix}.post_attention_layernorm.weight", (d,), 0
        for name, size in (
            ("self_attn.q_proj", (q, d)),
            ("self_attn.k_proj", (kv, d)),
            ("self_attn.v_proj", (kv, d)),
            ("self_attn.o_proj", (d, q)),
            ("mlp.gate_proj", (ff, d)),
            ("mlp.up_proj", (ff, d)),
            ("mlp.down_proj", (d, ff)),
        ):
            yield f"{prefix}.{name}.weight", size, 0.02
    yield "model.norm.weight", (d,), 0


def _bart(config: dict[str, Any]) -> Tensors:
    """BART's tensors, initialised as BART is; biases are as large as weights, to be seen."""
    d = config["d_model"]
    yield "model.shared.weight", (config["vocab_size"], d), 0.02
    for side in ("encoder", "decoder"):
        ff = config[f"{side}_ffn_dim"]
        top = f"model.{side}"
        yield f"{top}.embed_positions.weight", (config["max_position_embeddings"] + 2, d), 0.02
        attentions = ["self_attn", "encoder_attn"][: 1 + (side == "decoder")]
        norms = ["layernorm_embedding"]
        for i in range(config[f"{side}_layers"]):
            layer = f"layers.{i}"
            linears = [(f"{a}.{part}_proj", d, d) for a in attentions for part in "qkv"]
            linears += [(f"{a}.out_proj", d, d) for a in attentions]
            for name, rows, columns in (*linears, ("fc1", ff, d), ("fc2", d, ff)):
                yield f"{top}.{layer}.{name}.weight", (rows, columns), 0.02
                yield f"{top}.{layer}.{name}.bias", (rows,), 0.02
            norms += [f"{layer}.{a}_layer_norm" for a in attentions]
            norms.append(f"{layer}.final_layer_norm")
        for norm in norms:
            yield f"{top}.{norm}.weight", (d,), 0
            yield f"{top}.{norm}.bias", (d,), 0.02


TENSORS = {"t5": _t5, "llama": _llama, "bart": _bart}
"""Type of a model -> its tensors."""


def _write_tokenizer(path: Path, size: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "</s>": 1, **{f"w{i}": i for i in range(2, size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
