"""Llama and Qwen2: decoder-only, rotary positions, gated SiLU (arXiv 2302.13971, 2407.10671)."""

from __future__ import annotations

from edgedec.export.families import Config, Family, register
from edgedec.export.families.fields import activation, head_is_tied, refuse
from edgedec.export.families.rope import rotary
from edgedec.export.spec import ModelSpec, Stack
from edgedec.export.weights import Names, Tensors

QWEN2 = ("qwen2", "qwen2_lora_drop")
"""The second is what LoRA-Drop's authors call a Qwen2 with their adapters (arXiv 2601.02569)."""
LAYER = "layers.{i}"


def spec(config: Config, tensors: Tensors) -> ModelSpec:
    """Read a Llama or Qwen2 configuration."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    refuse(bool(config.get("use_sliding_window")), "sliding-window attention")
    refuse((config.get("partial_rotary_factor") or 1.0) != 1.0, "partial rotary embedding")
    qwen2 = config["model_type"] in QWEN2
    attention_bias = bool(config.get("attention_bias", False))
    return ModelSpec(
        family="llama",
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        d_embedding=config["hidden_size"],
        embedding_scale=1.0,
        encoder=None,
        decoder=Stack(
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            d_ff=config["intermediate_size"],
            activation=activation(config.get("hidden_act", "silu")),
            gated=True,
            norm="rms",
            norm_epsilon=config.get("rms_norm_eps", 1e-6),
            norm_first=True,
            embedding_norm=False,
            final_norm=True,
            positions=rotary(config, head_dim),
            attention_scale=head_dim**-0.5,
            qkv_bias=qwen2 or attention_bias,
            out_bias=attention_bias and not qwen2,
            mlp_bias=bool(config.get("mlp_bias", False)),
        ),
        logit_scale=1.0,
        logit_bias=False,
        tied_head=head_is_tied(tensors, "lm_head.weight", ("embed_tokens",)),
        max_source=None,
        max_target=config.get("max_position_embeddings"),
    )


def names(_spec: ModelSpec) -> Names:
    """Llama's tensor names."""
    table: dict[str, str | tuple[str, ...]] = {
        "decoder.embed": "embed_tokens",
        "decoder.norm": "norm",
        "head": "lm_head",
        "decoder.{i}.self_attn.norm": f"{LAYER}.input_layernorm",
        "decoder.{i}.mlp.norm": f"{LAYER}.post_attention_layernorm",
    }
    for part in "qkvo":
        table[f"decoder.{{i}}.self_attn.{part}"] = f"{LAYER}.self_attn.{part}_proj"
    for part in ("gate", "up", "down"):
        table[f"decoder.{{i}}.mlp.{part}"] = f"{LAYER}.mlp.{part}_proj"
    return table


register(Family(("llama", *QWEN2), spec, names, LAYER))
