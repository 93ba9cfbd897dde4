"""Make small bundles that must load forever, and what they generate.

Run once for each, with the edgedec that introduced what it holds; do not run it again to make a
test pass. The weights are random, and no choice of a token is close: relative changes of 1e-4 to
all of them change nothing.

    python tests/data/make_bundle_v1.py bundle-v1
    python tests/data/make_bundle_v1.py bundle-v1-codes
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import edgedec

HERE = Path(__file__).parent
BUNDLES: dict[str, dict[str, Any]] = {
    "bundle-v1": {},
    # Codes of 4 bits and of 8 (embedding and head), with every operator of edgedec's and its body.
    "bundle-v1-codes": {"quant": "cb4", "compute": "fp32"},
}
SEED = 3
WORDS = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", ".", ",", "!"]
CONFIG: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 16,
    "d_kv": 8,
    "num_heads": 2,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "vocab_size": len(WORDS),
}
GENERATION = {
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "max_new_tokens": 12,
}
INPUTS: list[Any] = ["hello, world!", "a", [5, 4, 3, 30, 1]]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"num_beams": 4},
    {"num_beams": 3, "length_penalty": 0.5, "no_repeat_ngram_size": 2},
    {"min_new_tokens": 12, "repetition_penalty": 1.5},
    {"max_new_tokens": 90, "min_new_tokens": 90},
]


def weights() -> dict[str, np.ndarray[Any, Any]]:
    """Random tensors under T5's names."""
    rng = np.random.default_rng(SEED)
    d, ff, inner = CONFIG["d_model"], CONFIG["d_ff"], CONFIG["num_heads"] * CONFIG["d_kv"]
    tensors = {
        "shared.weight": rng.normal(size=(len(WORDS), d)),
        "lm_head.weight": rng.normal(size=(len(WORDS), d)),
    }
    for stack, blocks in (
        ("encoder", ["SelfAttention"]),
        ("decoder", ["SelfAttention", "EncDecAttention"]),
    ):
        layer = f"{stack}.block.0.layer"
        for n, block in enumerate(blocks):
            tensors[f"{layer}.{n}.layer_norm.weight"] = np.ones(d)
            for part in "qkv":
                tensors[f"{layer}.{n}.{block}.{part}.weight"] = rng.normal(size=(inner, d)) / 2
            tensors[f"{layer}.{n}.{block}.o.weight"] = rng.normal(size=(d, inner)) / 2
        last = f"{layer}.{len(blocks)}"
        tensors[f"{last}.layer_norm.weight"] = np.ones(d)
        for part in ("wi_0", "wi_1"):
            tensors[f"{last}.DenseReluDense.{part}.weight"] = rng.normal(size=(ff, d)) / 2
        tensors[f"{last}.DenseReluDense.wo.weight"] = rng.normal(size=(d, ff)) / 2
        tensors[f"{layer}.0.SelfAttention.relative_attention_bias.weight"] = rng.normal(
            size=(CONFIG["relative_attention_num_buckets"], CONFIG["num_heads"])
        )
        tensors[f"{stack}.final_layer_norm.weight"] = np.ones(d)
    return {name: values.astype(np.float32) for name, values in tensors.items()}


def tokenizer() -> dict[str, Any]:
    """One token per letter, ``</s>`` at the end; outputs are joined by spaces."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    end = {"id": "</s>", "ids": [1], "tokens": ["</s>"]}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": WORDS[i], "special": True, **special} for i in range(3)
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "."},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [text, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": end},
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: i for i, word in enumerate(WORDS)},
            "unk_token": "<unk>",
        },
    }


def write(name: str, **options: Any) -> None:
    """Write a bundle and beside it, in ``{name}.json``, what it generates."""
    bundle = HERE / name
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "letters"
        checkpoint.mkdir()
        for file, value in (
            ("config.json", CONFIG),
            ("generation_config.json", GENERATION),
            ("tokenizer.json", tokenizer()),
        ):
            (checkpoint / file).write_text(json.dumps(value) + "\n")
        save_file(weights(), checkpoint / "model.safetensors")
        shutil.rmtree(bundle, ignore_errors=True)
        edgedec.export(checkpoint, bundle, **options)
    generator = edgedec.load(bundle, threads=1)
    expected = [
        {
            "options": request,
            "results": [
                {"tokens": r.tokens, "text": r.text, "score": r.score, "reason": r.finish_reason}
                for r in generator.generate(INPUTS, **request)
            ],
        }
        for request in REQUESTS
    ]
    text = json.dumps({"inputs": INPUTS, "expected": expected}, indent=1)
    (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(name, **BUNDLES[name])
