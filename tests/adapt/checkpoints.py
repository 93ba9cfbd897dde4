"""Tiny random checkpoints with a tokenizer, written without a model class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import save_file

WORDS = ("<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz")
D, FF, LAYERS, HEADS, WIDTH = 16, 24, 4, 2, 8
T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": len(WORDS),
    "d_model": D,
    "d_ff": FF,
    "d_kv": WIDTH,
    "num_heads": HEADS,
    "num_layers": 1,
    "num_decoder_layers": LAYERS,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": len(WORDS),
    "hidden_size": D,
    "intermediate_size": FF,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def write_t5(folder: Path) -> Path:
    """A T5 v1.1 with a tied head."""
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (len(WORDS), D)}
    for side, layers in (("encoder", 1), ("decoder", LAYERS)):
        attentions = ("SelfAttention", "EncDecAttention")[: 1 if side == "encoder" else 2]
        for i in range(layers):
            block = f"{side}.block.{i}.layer"
            for n, attention in enumerate(attentions):
                for part in "qkv":
                    shapes[f"{block}.{n}.{attention}.{part}.weight"] = (HEADS * WIDTH, D)
                shapes[f"{block}.{n}.{attention}.o.weight"] = (D, HEADS * WIDTH)
            mlp = f"{block}.{len(attentions)}.DenseReluDense"
            shapes |= {f"{mlp}.{part}.weight": (FF, D) for part in ("wi_0", "wi_1")}
            shapes[f"{mlp}.wo.weight"] = (D, FF)
            shapes |= {f"{block}.{n}.layer_norm.weight": (D,) for n in range(len(attentions) + 1)}
        table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes[table] = (8, HEADS)
        shapes[f"{side}.final_layer_norm.weight"] = (D,)
    return _write(folder, T5, shapes)


def write_llama(folder: Path) -> Path:
    """A Llama with grouped queries and a tied head."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (len(WORDS), D)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (D,),
            f"{layer}.post_attention_layernorm.weight": (D,),
            f"{layer}.self_attn.q_proj.weight": (D, D),
            f"{layer}.self_attn.k_proj.weight": (WIDTH, D),
            f"{layer}.self_attn.v_proj.weight": (WIDTH, D),
            f"{layer}.self_attn.o_proj.weight": (D, D),
            f"{layer}.mlp.gate_proj.weight": (FF, D),
            f"{layer}.mlp.up_proj.weight": (FF, D),
            f"{layer}.mlp.down_proj.weight": (D, FF),
        }
    shapes["model.norm.weight"] = (D,)
    return _write(folder, LLAMA, shapes)


def write_pairs(path: Path, *, targets: bool = True) -> Path:
    """Words, and what becomes of them: every letter the next one, which takes no time to learn."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 25, rng.integers(2, 9)) for _ in range(240)]
    lines = [
        "".join(chr(97 + c) for c in row)
        + ("\t" + "".join(chr(98 + c) for c in row) if targets else "")
        for row in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def _write(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    rng = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, np.float32)
        norm = "norm" in name
        tensors[name] = 1 + 0.1 * values if norm else values * np.float32(shape[-1] ** -0.5)
    folder.mkdir()
    save_file(
        {name: value.astype(np.float16) for name, value in tensors.items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "LICENSE").write_text("none\n")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.decoder = tokenizers.decoders.Fuse()
    tokenizer.add_special_tokens(list(WORDS[:3]))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
