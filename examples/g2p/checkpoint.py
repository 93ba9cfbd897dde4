"""Writing and reading the model as an ordinary Hugging Face T5 folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from g2p.model import EOS, PAD, G2PTransformer, ModelConfig
from g2p.tokenizer import EOS as EOS_TOKEN
from g2p.tokenizer import PAD as PAD_TOKEN
from g2p.tokenizer import UNK as UNK_TOKEN


def save_checkpoint(
    folder: Path, model: G2PTransformer, tokenizer: Tokenizer, dtype: torch.dtype = torch.float16
) -> None:
    """Write config, weights and tokenizer; tied weights are stored once."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to(dtype).contiguous() for name, tensor in hugging_face_weights(model)
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", hugging_face_config(model.config, dtype))
    _write_json(
        folder / "generation_config.json",
        {"decoder_start_token_id": PAD, "eos_token_id": EOS, "pad_token_id": PAD},
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": PAD_TOKEN,
            "eos_token": EOS_TOKEN,
            "unk_token": UNK_TOKEN,
            "clean_up_tokenization_spaces": False,
        },
    )


def load_checkpoint(folder: Path) -> tuple[G2PTransformer, Tokenizer]:
    """The inverse of ``save_checkpoint``, in float32 and evaluation mode."""
    config = json.loads((folder / "config.json").read_text())
    model = G2PTransformer(
        ModelConfig(**{name: config[name] for name in ModelConfig.__dataclass_fields__})
    )
    stored = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, view in hugging_face_names(model):
            scale = config["d_kv"] ** 0.5 if name.endswith("Attention.q.weight") else 1.0
            view.copy_(stored[name].float() * scale)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def hugging_face_weights(model: G2PTransformer) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its T5 name; queries take over the 1/sqrt(d_kv) of the scores."""
    scale: float = model.config.d_kv**-0.5
    for name, view in hugging_face_names(model):
        yield name, view * scale if name.endswith("Attention.q.weight") else view


def hugging_face_names(model: G2PTransformer) -> Iterator[tuple[str, Tensor]]:
    """Views of our parameters, each under the name T5 gives it."""
    yield "shared.weight", model.embedding.weight
    for part, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        first = f"{part}.block.0.layer.0.SelfAttention"
        yield f"{first}.relative_attention_bias.weight", stack.position.weight
        for i, layer in enumerate(stack.layers):
            attentions = [("SelfAttention", layer.self_norm, layer.self_attention)]
            if layer.cross_norm is not None and layer.cross_attention is not None:
                attentions.append(("EncDecAttention", layer.cross_norm, layer.cross_attention))
            for j, (kind, norm, attention) in enumerate(attentions):
                prefix = f"{part}.block.{i}.layer.{j}"
                yield f"{prefix}.layer_norm.weight", norm.weight
                for letter, matrix in zip("qkv", attention.projections, strict=True):
                    yield f"{prefix}.{kind}.{letter}.weight", matrix
                yield f"{prefix}.{kind}.o.weight", attention.output[0]
            prefix = f"{part}.block.{i}.layer.{len(attentions)}"
            yield f"{prefix}.layer_norm.weight", layer.ff_norm.weight
            for k, matrix in enumerate(layer.feed_forward.inputs):
                yield f"{prefix}.DenseReluDense.wi_{k}.weight", matrix
            yield f"{prefix}.DenseReluDense.wo.weight", layer.feed_forward.output[0]
        yield f"{part}.final_layer_norm.weight", stack.norm.weight


def hugging_face_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """A T5 config, with a note that every decoder layer was trained as an exit."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_ff": config.d_ff,
        "d_kv": config.d_kv,
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": config.dropout_rate,
        "initializer_factor": 1.0,
        "tie_word_embeddings": True,
        "scale_decoder_outputs": True,
        "use_cache": True,
        "decoder_start_token_id": PAD,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "edgedec": {
            "exit_layers": list(range(1, config.num_decoder_layers + 1)),
            "exit_norm": "shared",
        },
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
