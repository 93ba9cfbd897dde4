"""OPT: decoder-only with learned positions (arXiv 2205.01068)."""

from __future__ import annotations

from edgedec.export.families import Config, Family, register
from edgedec.export.families.fields import activation, head_is_tied, refuse
from edgedec.export.spec import Learned, ModelSpec, Stack
from edgedec.export.weights import Names, Tensors

LAYER = "decoder.layers.{i}"


def spec(config: Config, tensors: Tensors) -> ModelSpec:
    """Read an OPT configuration; opt-350m alone is post-norm with a narrower embedding."""
    heads = config["num_attention_heads"]
    width = config["hidden_size"]
    norm_first = config.get("do_layer_norm_before", True)
    bias = config.get("enable_bias", True)
    refuse(not config.get("layer_norm_elementwise_affine", True), "norms without weights")
    return ModelSpec(
        family="opt",
        vocab_size=config["vocab_size"],
        d_model=width,
        d_embedding=config.get("word_embed_proj_dim") or width,
        embedding_scale=1.0,
        encoder=None,
        decoder=Stack(
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=heads,
            head_dim=width // heads,
            d_ff=config["ffn_dim"],
            activation=activation(config.get("activation_function", "relu")),
            gated=False,
            norm="layer",
            norm_epsilon=1e-5,
            norm_first=norm_first,
            embedding_norm=False,
            final_norm=norm_first and not config.get("_remove_final_layer_norm", False),
            positions=Learned(offset=2),
            attention_scale=(width // heads) ** -0.5,
            qkv_bias=bias,
            out_bias=bias,
            mlp_bias=bias,
        ),
        logit_scale=1.0,
        logit_bias=False,
        tied_head=head_is_tied(tensors, "lm_head.weight", ("decoder.embed_tokens",)),
        max_source=None,
        max_target=config["max_position_embeddings"],
    )


def names(_spec: ModelSpec) -> Names:
    """OPT's tensor names."""
    table: dict[str, str | tuple[str, ...]] = {
        "decoder.embed": "decoder.embed_tokens",
        "decoder.embed_in": "decoder.project_in",
        "decoder.embed_out": "decoder.project_out",
        "decoder.positions": "decoder.embed_positions",
        "decoder.norm": "decoder.final_layer_norm",
        "head": "lm_head",
        "decoder.{i}.self_attn.o": f"{LAYER}.self_attn.out_proj",
        "decoder.{i}.self_attn.norm": f"{LAYER}.self_attn_layer_norm",
        "decoder.{i}.mlp.up": f"{LAYER}.fc1",
        "decoder.{i}.mlp.down": f"{LAYER}.fc2",
        "decoder.{i}.mlp.norm": f"{LAYER}.final_layer_norm",
    }
    for part in "qkv":
        table[f"decoder.{{i}}.self_attn.{part}"] = f"{LAYER}.self_attn.{part}_proj"
    return table


register(Family(("opt",), spec, names, LAYER))
