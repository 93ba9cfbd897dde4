"""Mu, the encoder-decoder of "Return of the Encoder" (arXiv 2501.16273).

Its authors treat id 0, the unknown token, as padding wherever it stands; here only what fills up a
batch is padding. Texts that its tokenizer covers give the same result.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from edgedec.export.families import Config, Family, register
from edgedec.export.families.fields import head_is_tied, refuse
from edgedec.export.families.rope import rotary
from edgedec.export.spec import ModelSpec, Stack
from edgedec.export.weights import Names, Tensors, Weights

# The published weights come without a configuration file: these are the paper's 330M text model.
DEFAULTS: Config = {
    "n_encoder_layer": 20,
    "n_decoder_layer": 10,
    "n_embd": 1024,
    "qkv_embd": 384,
    "hidden_dim": 4096,
    "n_head": 6,
    "n_kv_head": 3,
    "block_size": 1024,
    "rope_theta": 10000,
    "vocab_size": 32128,
    "is_interleaved": False,
}
DECODER = "transformer.h.{i}"
PERMUTED = ("self_attn.q", "self_attn.o", "cross_attn.q", "cross_attn.o")


def spec(config: Config, tensors: Tensors) -> ModelSpec:
    """Read Mu's configuration; keys that are missing take the 330M text model's values."""
    config = {**DEFAULTS, **config}
    refuse(config.get("rope_factor", 1.0) != 1.0, "a rope_factor other than 1")
    refuse(bool(config["is_interleaved"]), "is_interleaved key/value heads")
    width = config["qkv_embd"] or config["n_embd"]
    head_dim = width // config["n_head"]

    def stack(layers: int) -> Stack:
        return Stack(
            layers=layers,
            heads=config["n_head"],
            kv_heads=config["n_kv_head"],
            head_dim=head_dim,
            d_ff=config["hidden_dim"],
            activation="gelu_tanh",
            gated=False,
            norm="rms",
            norm_epsilon=1e-6,
            norm_first=True,
            embedding_norm=False,
            final_norm=True,
            positions=rotary(config, head_dim),
            attention_scale=head_dim**-0.5,
            qkv_bias=True,
            out_bias=True,
            mlp_bias=True,
        )

    return ModelSpec(
        family="mu",
        vocab_size=config["vocab_size"],
        d_model=config["n_embd"],
        d_embedding=config["n_embd"],
        embedding_scale=1.0,
        encoder=stack(config["n_encoder_layer"]),
        decoder=stack(config["n_decoder_layer"]),
        logit_scale=1.0,
        logit_bias=False,
        tied_head=head_is_tied(tensors, "lm_head.weight", ("transformer.wte",)),
        max_source=config["block_size"],
        max_target=config["block_size"],
    )


def names(_spec: ModelSpec) -> Names:
    """Mu's tensor names: ``e`` is the encoder, ``h`` the decoder."""
    table: dict[str, str | tuple[str, ...]] = {
        "encoder.embed": "transformer.wte",
        "decoder.embed": "transformer.wte",
        "encoder.norm": "transformer.ln_e",
        "decoder.norm": "transformer.ln_f",
        "head": "lm_head",
    }
    blocks = {
        "encoder": ("transformer.e.{i}", {"self_attn": ("attn", "ln1"), "mlp": ("mlp", "ln2")}),
        "decoder": (
            DECODER,
            {
                "self_attn": ("causal_attn", "ln1"),
                "cross_attn": ("cross_attn", "ln2"),
                "mlp": ("mlp", "ln3"),
            },
        ),
    }
    for side, (layer, parts) in blocks.items():
        for ours, (theirs, norm) in parts.items():
            table[f"{side}.{{i}}.{ours}.norm"] = f"{layer}.{norm}"
            linears = (
                {"up": "fc1", "down": "fc2"}
                if ours == "mlp"
                else {part: f"{part}_linear" for part in "qkv"} | {"o": "out_linear"}
            )
            for our, their in linears.items():
                table[f"{side}.{{i}}.{ours}.{our}"] = f"{layer}.{theirs}.{their}"
    return table


def group_heads(spec: ModelSpec, weights: Weights) -> None:
    """Reorder query heads from Mu's tiling to grouped-query order.

    Query head h of Mu reads key/value head h mod n_kv; ONNX ``Attention`` lets it read h div group.
    Permuting the query projection's rows and the output projection's columns changes nothing else.
    """
    for side, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        assert stack is not None
        heads = np.arange(stack.heads).reshape(-1, stack.kv_heads).T.reshape(-1)
        rows = (heads[:, None] * stack.head_dim + np.arange(stack.head_dim)).reshape(-1)
        take_rows = partial(np.take, indices=rows, axis=0)
        take_columns = partial(np.take, indices=rows, axis=1)

        for i in range(stack.layers):
            for attention in ("self_attn", "cross_attn")[: 1 if side == "encoder" else 2]:
                module = f"{side}.{i}.{attention}"
                for leaf in ("weight", "bias"):
                    weights.put(f"{module}.q.{leaf}", weights[f"{module}.q.{leaf}"].map(take_rows))
                weights.put(f"{module}.o.weight", weights[f"{module}.o.weight"].map(take_columns))


def generation(_config: Config) -> Config:
    """Mu has no generation configuration: ids of its tokenizer (Phi-3.5's)."""
    return {
        "decoder_start_token_id": 1,
        "bos_token_id": 1,
        "pad_token_id": 0,
        "eos_token_id": 32000,
    }


register(Family(("mu",), spec, names, DECODER, group_heads, generation, PERMUTED))
