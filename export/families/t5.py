"""T5 and its relatives: T5 1.0, v1.1, Flan-T5, ByT5, mT5, UMT5 (arXiv 1910.10683, 2304.09151)."""

from __future__ import annotations

from edgedec.export.families import Config, Family, register
from edgedec.export.families.fields import activation, head_is_tied
from edgedec.export.spec import ModelSpec, RelativeBias, Stack
from edgedec.export.weights import Names, Tensors

EMBEDDINGS = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")


def spec(config: Config, tensors: Tensors) -> ModelSpec:
    """Read a T5 configuration."""
    model_type = config["model_type"]
    projection = config.get("feed_forward_proj", "gated-gelu" if model_type != "t5" else "relu")
    gated = projection.startswith("gated-")
    # "gated-gelu" has always meant the tanh form here; older files say so in dense_act_fn.
    act = config.get("dense_act_fn") or projection.removeprefix("gated-")
    if gated and act == "gelu":
        act = "gelu_new"
    tied = head_is_tied(tensors, "lm_head.weight", EMBEDDINGS)
    layers = int(config.get("num_layers", 6))

    def stack(count: int) -> Stack:
        return Stack(
            layers=count,
            heads=config.get("num_heads", 8),
            kv_heads=config.get("num_heads", 8),
            head_dim=config.get("d_kv", 64),
            d_ff=config["d_ff"],
            activation=activation(act),
            gated=gated,
            norm="rms",
            norm_epsilon=config.get("layer_norm_epsilon", 1e-6),
            norm_first=True,
            embedding_norm=False,
            final_norm=True,
            positions=RelativeBias(
                buckets=config.get("relative_attention_num_buckets", 32),
                max_distance=config.get("relative_attention_max_distance", 128),
                per_layer=model_type == "umt5",
            ),
            attention_scale=1.0,
            qkv_bias=False,
            out_bias=False,
            mlp_bias=False,
        )

    decoder_layers = config.get("num_decoder_layers")
    return ModelSpec(
        family="t5",
        vocab_size=config["vocab_size"],
        d_model=config["d_model"],
        d_embedding=config["d_model"],
        embedding_scale=1.0,
        encoder=stack(layers),
        decoder=stack(layers if decoder_layers is None else int(decoder_layers)),
        logit_scale=config["d_model"] ** -0.5 if scales_output(config, tied=tied) else 1.0,
        logit_bias=False,
        tied_head=tied,
        max_source=None,
        max_target=None,
    )


def scales_output(config: Config, *, tied: bool) -> bool:
    """Whether the decoder's output is divided by sqrt(d_model) before the head.

    T5 1.0 and UMT5 do where the head is tied, mT5 never does. Newer configurations of T5 say so in
    ``scale_decoder_outputs`` (and call every checkpoint tied); all others imply it by
    ``tie_word_embeddings``, true by default.
    """
    if config["model_type"] == "mt5":
        return False
    said = config.get("scale_decoder_outputs")
    if said is not None:
        return bool(said)
    return tied and config.get("tie_word_embeddings") is not False


def names(spec: ModelSpec) -> Names:
    """T5's tensor names: blocks of numbered sub-layers."""
    table: dict[str, str | tuple[str, ...]] = {
        "encoder.embed": EMBEDDINGS,
        "decoder.embed": EMBEDDINGS,
        "head": "lm_head",
        "encoder.norm": "encoder.final_layer_norm",
        "decoder.norm": "decoder.final_layer_norm",
    }
    for ours, cross in (("encoder", False), ("decoder", True)):
        block = ours + ".block.{i}.layer"
        mlp = 2 if cross else 1
        for part in "qkvo":
            table[f"{ours}.{{i}}.self_attn.{part}"] = f"{block}.0.SelfAttention.{part}"
            if cross:
                table[f"{ours}.{{i}}.cross_attn.{part}"] = f"{block}.1.EncDecAttention.{part}"
        table[f"{ours}.{{i}}.self_attn.relative_bias"] = (
            f"{block}.0.SelfAttention.relative_attention_bias"
        )
        table[f"{ours}.{{i}}.self_attn.norm"] = f"{block}.0.layer_norm"
        if cross:
            table[f"{ours}.{{i}}.cross_attn.norm"] = f"{block}.1.layer_norm"
        table[f"{ours}.{{i}}.mlp.norm"] = f"{block}.{mlp}.layer_norm"
        gated = spec.decoder.gated
        table[f"{ours}.{{i}}.mlp.gate"] = f"{block}.{mlp}.DenseReluDense.wi_0"
        up = "wi_1" if gated else "wi"
        table[f"{ours}.{{i}}.mlp.up"] = f"{block}.{mlp}.DenseReluDense.{up}"
        table[f"{ours}.{{i}}.mlp.down"] = f"{block}.{mlp}.DenseReluDense.wo"
    return table


register(Family(("t5", "mt5", "umt5"), spec, names, "decoder.block.{i}"))
