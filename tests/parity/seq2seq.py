"""T5 and its relatives, BART and Marian: the variants that checkpoints of the hub have."""

from __future__ import annotations

from typing import Any

from tests.parity.harness import Case
from tests.parity.huggingface import (
    case,
    edit_json,
    edit_tensors,
    remove_file,
    untie,
    with_prefix,
)

VOCAB = 96
T5: dict[str, Any] = {
    "vocab_size": VOCAB,
    "d_model": 40,
    "d_kv": 12,
    "d_ff": 56,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}
# Weights under which a model says different things one after the other.
RELU_SCALES = {"embed": 0.25, "gain": 4.0}
# Nothing helps random post-norm models; without repeated pairs their second choices count too.
VARIED: dict[str, Any] = {"no_repeat_ngram_size": 2}
GATED = {**T5, "feed_forward_proj": "gated-gelu"}
BART: dict[str, Any] = {
    "vocab_size": VOCAB,
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}
MARIAN: dict[str, Any] = {
    **BART,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": VOCAB - 1,
    "decoder_start_token_id": VOCAB - 1,
    "eos_token_id": 0,
}

t5, mt5, umt5, bart, marian = (
    f"{name}ForConditionalGeneration" if name != "Marian" else "MarianMTModel"
    for name in ("T5", "MT5", "UMT5", "Bart", "Marian")
)

# As transformers 4 wrote it: whether the head is tied also said whether its input is scaled.
NEWER = ("scale_decoder_outputs", "dense_act_fn", "is_gated_act")
OLD_UNTIED = edit_json(*NEWER, tie_word_embeddings=False)
OLD_TIED = edit_json(*NEWER, tie_word_embeddings=True)


def unscaled(model: Any) -> None:
    """Transformers 5 calls every UMT5 tied and scales it; those of the hub are neither."""
    model.config.tie_word_embeddings = False


def stored_twice(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tied tensors once per place of use and no bias of the logits: the first BART files."""
    shared = tensors["model.shared.weight"]
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    twice = {name: shared.clone() for name in (*names, "lm_head.weight")}
    kept = {name: tensor for name, tensor in tensors.items() if name != "final_logits_bias"}
    return {**kept, **twice}


T5_CASES = [
    case("t5-1.0", t5, T5, scales=RELU_SCALES),
    case("t5-1.0 of transformers 4", t5, T5, scales=RELU_SCALES, edits=[OLD_TIED]),
    case("t5-1.1 of transformers 4", t5, GATED, edits=[untie, OLD_UNTIED]),
    case("t5-1.1", t5, {**GATED, "scale_decoder_outputs": False}, edits=[untie]),
    case("t5 tied, not scaled", t5, {**GATED, "scale_decoder_outputs": False}),
    case("t5 untied, scaled", t5, {**GATED, "scale_decoder_outputs": True}, edits=[untie]),
    case("t5 exact gelu", t5, {**T5, "feed_forward_proj": "gelu"}, scales=RELU_SCALES),
    case("t5 gated silu", t5, {**T5, "feed_forward_proj": "gated-silu"}),
    case(
        "byt5",
        t5,
        {**GATED, "num_layers": 4, "num_decoder_layers": 1},
        edits=[untie, OLD_UNTIED],
        cuts=("all",),
    ),
    case("t5 long", t5, GATED, lengths=(200, 150, 90), target=40, cuts=("0,2",)),
    case(
        "t5 long, 32 buckets to 128",
        t5,
        {**GATED, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
        lengths=(200, 140, 3),
        target=150,
        cuts=(),
    ),
    case("mt5 tied", mt5, GATED),
    case("mt5 of transformers 4", mt5, GATED, edits=[untie, OLD_UNTIED]),
    case("umt5 tied", umt5, GATED),
    case("umt5 of transformers 4", umt5, GATED, edits=[untie, OLD_UNTIED], tweak=unscaled),
    case("umt5 long", umt5, GATED, lengths=(60, 20, 33), target=40),
]

BART_CASES = [
    case("bart", bart, BART, generation=VARIED),
    case(
        "bart scaled, forced tokens",
        bart,
        {**BART, "scale_embedding": True, "activation_function": "gelu_new"},
        generation={**VARIED, "forced_bos_token_id": 3, "min_length": 4},
    ),
    case(
        "bart without prefix",
        bart,
        {**BART, "scale_embedding": True},
        edits=[with_prefix("")],
        generation=VARIED,
    ),
    case(
        "bart of old",
        bart,
        BART,
        edits=[
            edit_tensors(stored_twice),
            edit_json("tie_word_embeddings", forced_eos_token_id=None, **VARIED),
            remove_file("generation_config.json"),
        ],
        generation=VARIED,
    ),
]

MARIAN_CASES = [
    case("marian", marian, MARIAN, generation={**VARIED, "bad_words_ids": [[VOCAB - 1]]}),
    case("marian unscaled", marian, {**MARIAN, "scale_embedding": False}, generation=VARIED),
]

CASES: list[Case] = [*T5_CASES, *BART_CASES, *MARIAN_CASES]
