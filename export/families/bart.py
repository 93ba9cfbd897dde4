"""BART: post-norm encoder-decoder with learned positions (arXiv 1910.13461)."""

from __future__ import annotations

import math

from edgedec.export.families import Config, Family, register
from edgedec.export.families.fields import activation, head_is_tied
from edgedec.export.spec import Learned, ModelSpec, Positions, Stack
from edgedec.export.weights import Names, Tensors

EMBEDDINGS = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
LAYER = "decoder.layers.{i}"


def spec(config: Config, tensors: Tensors) -> ModelSpec:
    """Read a BART configuration; positions start at row 2 of their table."""
    return post_norm_spec(config, tensors, "bart", Learned(offset=2), embedding_norm=True)


def post_norm_spec(
    config: Config, tensors: Tensors, family: str, positions: Positions, *, embedding_norm: bool
) -> ModelSpec:
    """The shape that BART and Marian share."""

    def stack(side: str) -> Stack:
        heads = config[f"{side}_attention_heads"]
        return Stack(
            layers=config[f"{side}_layers"],
            heads=heads,
            kv_heads=heads,
            head_dim=config["d_model"] // heads,
            d_ff=config[f"{side}_ffn_dim"],
            activation=activation(config.get("activation_function", "gelu")),
            gated=False,
            norm="layer",
            norm_epsilon=1e-5,
            norm_first=False,
            embedding_norm=embedding_norm,
            final_norm=False,
            positions=positions,
            attention_scale=(config["d_model"] // heads) ** -0.5,
            qkv_bias=True,
            out_bias=True,
            mlp_bias=True,
        )

    return ModelSpec(
        family=family,
        vocab_size=config.get("decoder_vocab_size") or config["vocab_size"],
        d_model=config["d_model"],
        d_embedding=config["d_model"],
        embedding_scale=math.sqrt(config["d_model"]) if config.get("scale_embedding") else 1.0,
        encoder=stack("encoder"),
        decoder=stack("decoder"),
        logit_scale=1.0,
        logit_bias="final_logits_bias" in tensors,
        tied_head=head_is_tied(tensors, "lm_head.weight", EMBEDDINGS),
        max_source=config["max_position_embeddings"],
        max_target=config["max_position_embeddings"],
    )


def names(_spec: ModelSpec) -> Names:
    """BART's tensor names, which Marian shares."""
    table: dict[str, str | tuple[str, ...]] = {"head": "lm_head", "logit_bias": "final_logits_bias"}
    for side in ("encoder", "decoder"):
        table[f"{side}.embed"] = (f"{side}.embed_tokens", "shared")
        table[f"{side}.positions"] = f"{side}.embed_positions"
        table[f"{side}.embed_norm"] = f"{side}.layernorm_embedding"
        layer = side + ".layers.{i}"
        attentions = {"self_attn": "self_attn"}
        if side == "decoder":
            attentions["cross_attn"] = "encoder_attn"
        for ours, theirs in attentions.items():
            for part in "qkv":
                table[f"{side}.{{i}}.{ours}.{part}"] = f"{layer}.{theirs}.{part}_proj"
            table[f"{side}.{{i}}.{ours}.o"] = f"{layer}.{theirs}.out_proj"
            table[f"{side}.{{i}}.{ours}.norm"] = f"{layer}.{theirs}_layer_norm"
        table[f"{side}.{{i}}.mlp.up"] = f"{layer}.fc1"
        table[f"{side}.{{i}}.mlp.down"] = f"{layer}.fc2"
        table[f"{side}.{{i}}.mlp.norm"] = f"{layer}.final_layer_norm"
    return table


register(Family(("bart",), spec, names, LAYER))
