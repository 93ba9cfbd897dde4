"""Llama, Qwen2 and OPT: the variants that checkpoints of the hub have."""

from __future__ import annotations

from typing import Any

from tests.parity.harness import Case
from tests.parity.huggingface import case, edit_json, with_prefix

VOCAB = 96
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
WIDE_HEADS = {**LLAMA, "head_dim": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
OPT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "ffn_dim": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 2,
}
OPT_SCALES = {"positions": 3.0, "gain": 1.5}
LONG: dict[str, Any] = {"lengths": (70, 20, 45), "target": 30}

llama, qwen2, opt = "LlamaForCausalLM", "Qwen2ForCausalLM", "OPTForCausalLM"


def old_rope(theta: float, **scaling: Any) -> Any:
    """Rotary settings as transformers 4 wrote them."""
    return edit_json("rope_parameters", rope_theta=theta, rope_scaling=scaling or None)


CASES: list[Case] = [
    case("llama", llama, LLAMA),
    case("llama tied", llama, {**LLAMA, "tie_word_embeddings": True}),
    case("llama wide heads, theta of transformers 4", llama, WIDE_HEADS, edits=[old_rope(5e5)]),
    case("llama biases", llama, {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    case("llama every head its own", llama, {**LLAMA, "num_key_value_heads": 4}),
    case(
        "llama linear",
        llama,
        {
            **WIDE_HEADS,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
        },
        **LONG,
    ),
    case(
        "llama linear of transformers 4",
        llama,
        WIDE_HEADS,
        edits=[old_rope(1e4, type="linear", factor=2.5)],
        **LONG,
    ),
    case(
        "llama3",
        llama,
        {**WIDE_HEADS, "rope_parameters": {**LLAMA3, "rope_theta": 5e5}},
        **LONG,
    ),
    case("llama3 of transformers 4", llama, WIDE_HEADS, edits=[old_rope(1e3, **LLAMA3)], **LONG),
    case("qwen2", qwen2, LLAMA),
    case("qwen2 tied", qwen2, {**LLAMA, "tie_word_embeddings": True}),
    case("opt", opt, OPT, scales=OPT_SCALES),
    case(
        "opt without prefix, gelu",
        opt,
        {**OPT, "activation_function": "gelu"},
        scales=OPT_SCALES,
        edits=[with_prefix("")],
    ),
    case(
        "opt post-norm, projected",
        opt,
        {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 24},
        generation={"no_repeat_ngram_size": 2},
    ),
    case("opt without biases", opt, {**OPT, "enable_bias": False}, scales=OPT_SCALES),
]
