"""Random checkpoints of every family, a few kilobytes each, and adapters in PEFT's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from edgedec.export.checkpoint import open_checkpoint
from edgedec.export.families import family_of, open_model
from edgedec.export.reference import Reference
from edgedec.export.spec import ModelSpec, Stack

Config = dict[str, Any]
Arrays = dict[str, NDArray[Any]]

LAYERS, WIDTH, VOCAB = 5, 16, 30
CONFIGS: dict[str, Config] = {
    "t5": {
        "model_type": "t5",
        "d_model": WIDTH,
        "d_kv": 4,
        "num_heads": 2,
        "d_ff": 24,
        "num_layers": 1,
        "num_decoder_layers": LAYERS,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "vocab_size": VOCAB,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
    "bart": {
        "model_type": "bart",
        "d_model": WIDTH,
        "encoder_layers": 1,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 20,
        "vocab_size": VOCAB,
        "decoder_start_token_id": 2,
        "pad_token_id": 1,
        "eos_token_id": 2,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 24,
        "vocab_size": VOCAB,
        "eos_token_id": 1,
    },
    "opt": {
        "model_type": "opt",
        "hidden_size": WIDTH,
        "ffn_dim": 24,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 24,
        "vocab_size": VOCAB,
        "eos_token_id": 2,
    },
    "mu": {
        "model_type": "mu",
        "n_encoder_layer": 1,
        "n_decoder_layer": LAYERS,
        "n_embd": WIDTH,
        "qkv_embd": 16,
        "hidden_dim": 24,
        "n_head": 4,
        "n_kv_head": 2,
        "block_size": 20,
        "vocab_size": VOCAB,
    },
}
CONFIGS["marian"] = CONFIGS["bart"] | {"model_type": "marian"}
CONFIGS["qwen2"] = CONFIGS["llama"] | {"model_type": "qwen2"}
PREFIX = {"llama": "model.", "qwen2": "model.", "opt": "model.", "bart": "model."}
"""What transformers writes before the names."""
ATTENTIONS = {
    "t5": "decoder.block.{i}.layer.0.SelfAttention.{part}",
    "bart": "model.decoder.layers.{i}.self_attn.{part}_proj",
    "marian": "decoder.layers.{i}.self_attn.{part}_proj",
    "llama": "model.layers.{i}.self_attn.{part}_proj",
    "qwen2": "model.layers.{i}.self_attn.{part}_proj",
    "opt": "model.decoder.layers.{i}.self_attn.{part}_proj",
    "mu": "transformer.h.{i}.causal_attn.{part}_linear",
}
"""Self-attention's projections in the decoder, as the checkpoints call them."""


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Values of the size of weights."""
    return (0.3 * np.random.default_rng([seed, *shape]).normal(size=shape)).astype(np.float32)


def spec_of(family: str) -> ModelSpec:
    """The spec of a family's model."""
    return family_of(CONFIGS[family]).spec(CONFIGS[family], {})


def tensors(family: str) -> Arrays:
    """Random weights with a tied head, under the names of the family's checkpoints."""
    spec = spec_of(family)
    rng = np.random.default_rng(1)
    found: Arrays = {}
    for ours, theirs in family_of(CONFIGS[family]).names(spec).items():
        stack = spec.encoder if ours.startswith("encoder") else spec.decoder
        if ours.startswith(("head", "logit_bias")) or stack is None:
            continue
        name = theirs if isinstance(theirs, str) else theirs[0]
        for i in range(stack.layers) if "{i}" in ours else (0,):
            for leaf, shape in _shapes(ours, spec, stack, i).items():
                values = 0.3 * rng.normal(size=shape) + (ours.endswith("norm") and leaf == "weight")
                at = f"{PREFIX.get(family, '')}{name.replace('{i}', str(i))}.{leaf}"
                found[at] = values.astype(np.float32)
    return found


def _shapes(ours: str, spec: ModelSpec, stack: Stack, layer: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a module; none where the model does not have it."""
    d, part = spec.d_model, ours.rpartition(".")[2]
    if part.endswith("norm"):
        there = {"norm": stack.final_norm or "{i}" in ours, "embed_norm": stack.embedding_norm}
        leaves = ("weight",) if stack.norm == "rms" else ("weight", "bias")
        return dict.fromkeys(leaves, (d,)) if there[part] else {}
    if part == "relative_bias":
        buckets = (stack.positions.buckets, stack.heads) if spec.family == "t5" else ()  # type: ignore[union-attr]
        return {"weight": buckets} if layer == 0 else {}
    if part == "positions":
        assert spec.max_target is not None
        return {"weight": (spec.max_target + 2, d)} if spec.family != "marian" else {}
    linears = {
        "q": ((stack.q_width, d), stack.qkv_bias),
        "k": ((stack.kv_width, d), stack.qkv_bias),
        "v": ((stack.kv_width, d), stack.qkv_bias),
        "o": ((d, stack.q_width), stack.out_bias),
        "gate": ((stack.d_ff, d), stack.mlp_bias),
        "up": ((stack.d_ff, d), stack.mlp_bias),
        "down": ((d, stack.d_ff), stack.mlp_bias),
        "embed": ((spec.vocab_size, d), False),
    }
    if part not in linears or (part == "gate" and not stack.gated):
        return {}
    shape, bias = linears[part]
    return {"weight": shape} | ({"bias": shape[:1]} if bias else {})


def write(folder: Path, family: str, extra: Arrays | None = None, **config: Any) -> Path:
    """Write a checkpoint, with more tensors and other configuration keys; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[family] | config))
    save_file(tensors(family) | (extra or {}), folder / "model.safetensors")
    return folder


def write_adapter(folder: Path, stored: Arrays, **config: Any) -> Path:
    """Write an adapter as PEFT does; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "."}
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    save_file(stored, folder / "adapter_model.safetensors")
    return folder


def lora(base: Arrays, *modules: str, rank: int = 2) -> Arrays:
    """Random adapters of modules of a base, in PEFT's names."""
    found: Arrays = {}
    for i, module in enumerate(modules):
        rows, columns = base[f"{module}.weight"].shape
        at = f"base_model.model.{module}"
        found[f"{at}.lora_A.weight"] = random(rank, columns, seed=2 * i)
        found[f"{at}.lora_B.weight"] = random(rows, rank, seed=2 * i + 1)
    return found


def logits(folder: Path, **options: Any) -> NDArray[np.float32]:
    """What the NumPy reference computes of a checkpoint."""
    checkpoint = open_checkpoint(folder, **options)
    spec, weights = open_model(checkpoint.config, checkpoint.tensors)
    rng = np.random.default_rng(4)
    target = rng.integers(3, spec.vocab_size, (2, 5))
    source = None if spec.encoder is None else rng.integers(3, spec.vocab_size, (2, 4))
    mask = None if source is None else np.ones_like(source)
    return Reference(spec, weights).logits(source, mask, target)
