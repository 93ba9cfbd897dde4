"""A T5 checkpoint as a GGUF file for llama.cpp.

    python to_gguf.py CHECKPOINT FILE.gguf TYPE     # Q4_0, Q8_0

llama.cpp's own converter wants a SentencePiece model, which the random checkpoints do not have. The
tensors are written as float32 under its names, and its own quantizer does the rest.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from gguf.tensor_mapping import get_tensor_name_map
from safetensors import safe_open

COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
"""Names under which a checkpoint may repeat its shared embedding."""


def write_float32(checkpoint: Path, file: Path) -> None:
    """Write a T5 checkpoint with tied embeddings."""
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.T5])
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config.get("n_positions", 512))
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(config["num_layers"])
    writer.add_decoder_block_count(config["num_decoder_layers"])
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
    writer.add_decoder_start_token_id(config["decoder_start_token_id"])
    names = get_tensor_name_map(gguf.MODEL_ARCH.T5, config["num_layers"])
    with safe_open(checkpoint / "model.safetensors", "np") as tensors:
        for name in set(tensors.keys()).difference(COPIES):
            mapped = names.get_name(name, (".weight",))
            if mapped is None:
                sys.exit(f"llama.cpp has no name for {name}")
            writer.add_tensor(mapped, tensors.get_tensor(name).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path, kind: str) -> None:
    """Quantize with llama.cpp's defaults for that file type."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        sys.exit(f"llama_model_quantize returned {code}")


def main(checkpoint: str, target: str, kind: str) -> None:
    """Write the float32 file, quantize it, and remove it."""
    plain = Path(f"{target}.float32")
    write_float32(Path(checkpoint), plain)
    quantize(plain, Path(target), kind)
    plain.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
