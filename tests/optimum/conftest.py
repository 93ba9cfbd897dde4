"""Tiny random checkpoints of architectures, and their bundles by way of optimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VOCAB = 120
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_BART = {
    "vocab_size": VOCAB, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "max_position_embeddings": 64, "decoder_start_token_id": 2,
    "forced_eos_token_id": None, **SPECIAL,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 1, **SPECIAL,
}  # fmt: skip
_GPT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **SPECIAL}
_LLAMA = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64, **SPECIAL,
}  # fmt: skip
_GROUPED = {**_LLAMA, "num_key_value_heads": 2, "head_dim": 8}
_LOCAL = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 4,
    "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64,
    "intermediate_size": 48, **SPECIAL,
}  # fmt: skip
_BLOOM = {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4, **SPECIAL}

# What each adds: an offset of positions, positions from padding, blocks of local attention, fused
# projections, rotary, windows, ALiBi, positions that optimum's description leaves out.
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pegasus": ("PegasusConfig", "PegasusForConditionalGeneration", _BART),
    "m2m100": ("M2M100Config", "M2M100ForConditionalGeneration", _BART),
    "longt5": ("LongT5Config", "LongT5ForConditionalGeneration", {**_T5, "local_radius": 5}),
    "t5": ("T5Config", "T5ForConditionalGeneration", _T5),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _LLAMA),
    "gpt-neo": ("GPTNeoConfig", "GPTNeoForCausalLM", _LOCAL),
    "bloom": ("BloomConfig", "BloomForCausalLM", _BLOOM),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**_GROUPED, "sliding_window": 8}),
}


@dataclass(frozen=True)
class Subject:
    """An architecture: its checkpoint, and the bundle that came of it."""

    name: str
    checkpoint: Path
    bundle: Path


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a random checkpoint whose logits depend on everything before them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            config, model, settings = ARCHITECTURES[name]
            torch.manual_seed(0)
            made = getattr(transformers, model)(getattr(transformers, config)(**settings))
            for parameter in made.parameters():
                if parameter.dim() > 1:
                    parameter.data.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
            made.save_pretrained(path)
        return path

    return make


@pytest.fixture(scope="session", params=ARCHITECTURES)
def subject(
    request: pytest.FixtureRequest,
    make_checkpoint: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Subject:
    """Each architecture in turn."""
    pytest.importorskip("optimum.exporters.onnx", reason="needs optimum-onnx: make test-optimum")
    import edgedec

    checkpoint = make_checkpoint(request.param)
    bundle = tmp_path_factory.mktemp("bundles") / request.param
    edgedec.export(checkpoint, bundle, via="optimum")
    return Subject(request.param, checkpoint, bundle)
