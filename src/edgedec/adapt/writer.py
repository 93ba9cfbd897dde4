"""Write what was trained: a Hugging Face folder, with LoRA beside the weights in PEFT's form."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedec.adapt.objective import Trained
from edgedec.adapt.twin import LowRank
from edgedec.errors import CheckpointError
from edgedec.export.checkpoint import Checkpoint
from edgedec.export.families import family_of
from edgedec.export.peft import CONFIG, PREFIX
from edgedec.export.weights import Tensor as Stored
from edgedec.export.weights import Weights
from edgedec.runtime.depth.plan import Policy

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

COPIED = re.compile(
    r"(generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|(merges|vocab)\.txt|[\w.-]+\.(model|spm)|chat_template\.(json|jinja)"
    r"|calibration\.(tsv|jsonl|txt)|(LICENSE|NOTICE)[\w .()-]*"
)
"""Files of the base that go along as they are."""
RECORD = "adapt.json"
"""How the folder was made and what it reached; what has one may be replaced."""


def write_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    weights: Weights,
    policy: Policy,
    trained: Trained,
    record: Mapping[str, Any],
) -> None:
    """Fill a folder.

    Args:
        folder: an empty one.
        checkpoint: the base.
        weights: its tensors under our names.
        policy: what it was adapted to; becomes ``edgedec.depth`` of ``config.json``.
        trained: what was learned.
        record: for `RECORD`.

    Raises:
        CheckpointError: the base's configuration has something else in the place of ours.
    """
    for path in sorted(checkpoint.folder.iterdir()):
        if COPIED.fullmatch(path.name) and path.is_file():
            shutil.copyfile(path, folder / path.name)
    layer = family_of(checkpoint.config).layer
    prefix = _prefix(weights, layer)
    extra = dict(trained.tensors)
    for number, low in trained.layers.items():
        module = f"{prefix}{layer.replace('{i}', str(number))}.lora_adapter"
        extra |= {f"{module}.A.weight": low.a, f"{module}.B.weight": low.b}
    _save(
        folder / "model.safetensors",
        {**{name: _as_stored(tensor) for name, tensor in checkpoint.tensors.items()}, **extra},
    )
    if trained.lora:
        _write_lora(folder, weights, trained.lora, encodes="encoder.embed.weight" in weights)
    config = {**checkpoint.config, **trained.config}
    config["edgedec"] = _own(config, policy)
    _write_json(folder / "config.json", config)
    _write_json(folder / RECORD, record)


def parameters_of(policy: Policy) -> dict[str, Any]:
    """A policy's parameters as JSON types, those that have their default left out."""
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in dataclasses.fields(policy)  # type: ignore[arg-type]
        if (value := getattr(policy, field.name)) != field.default
    }


def _own(config: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    own = config.get("edgedec") or {}
    depth = own.get("depth") or {} if isinstance(own, dict) else None
    if not isinstance(depth, dict):
        raise CheckpointError("'edgedec' of config.json is not an object with an object 'depth'.")
    return {**own, "depth": {**depth, policy.name: parameters_of(policy)}}


def _prefix(weights: Weights, layer: str) -> str:
    """The task head's prefix, where the checkpoint's tensors have it."""
    stored = weights["decoder.0.self_attn.v.weight"].name
    name, found, _ = stored.partition(layer.replace("{i}", "0"))
    return name if found else ""


def _write_lora(
    folder: Path, weights: Weights, lora: Mapping[str, LowRank], *, encodes: bool
) -> None:
    modules = {name: weights[f"{name}.weight"].name.removesuffix(".weight") for name in lora}
    tensors = {}
    for name, low in lora.items():
        tensors[f"{PREFIX}{modules[name]}.lora_A.weight"] = low.a
        tensors[f"{PREFIX}{modules[name]}.lora_B.weight"] = low.b
    _save(folder / "adapter_model.safetensors", tensors)
    one = next(iter(lora.values()))
    rank = int(one.a.shape[0])
    settings = {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": one.scaling * rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules.values()),
        "task_type": "SEQ_2_SEQ_LM" if encodes else "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    _write_json(folder / CONFIG, settings)


def _as_stored(tensor: Stored) -> Tensor:
    """A tensor of the base in the type that it is stored in."""
    import torch

    values = np.ascontiguousarray(tensor.load())
    if values.dtype.name == "bfloat16":  # NumPy's own extension, unknown to torch
        return torch.from_numpy(values.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    # Shared memory is refused there: a tied tensor that is stored twice stays stored twice.
    alone = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    save_file(alone, path, metadata={"format": "pt"})
    path.chmod(0o644)  # it writes a temporary file, which nobody else may read


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
