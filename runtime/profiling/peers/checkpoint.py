"""Checkpoints for transformers: whether it is the one, where the hub keeps it, opening it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

CONFIG = "config.json"


def sha256_of(folder: Path) -> str | None:
    """The hash that a bundle's manifest has of its checkpoint; None where there is none."""
    digest = hashlib.sha256()
    try:
        weights = sorted(folder.glob("model*.safetensors"))
        weights = weights or sorted(folder.glob("pytorch_model*.bin"))
        whole = [path for path in weights if path.stem in {"model", "pytorch_model"}]
        for path in (folder / CONFIG, *(whole or weights)):
            with path.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
    except (OSError, ValueError):  # of names that no file can have
        return None
    return digest.hexdigest()


def cached(hub_id: str, revision: str | None) -> str | None:
    """The folder of a checkpoint in the hub's cache; asks no network."""
    from transformers.utils.hub import cached_file

    found = cached_file(
        hub_id,
        CONFIG,
        revision=revision,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else str(Path(found).parent)


def open_checkpoint(name: str, *, local: bool) -> tuple[Any, Any]:
    """Open model and tokenizer with transformers.

    Args:
        name: folder or hub id.
        local: no network.

    Returns:
        The model, and its tokenizer or None.

    Raises:
        InputError: transformers cannot open the model.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    from edgedec.errors import InputError

    if local and not Path(name, CONFIG).is_file():
        raise InputError(f"{name} is not a checkpoint's folder: it has no {CONFIG}.")
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=local)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            name, config=config, dtype=torch.float32, local_files_only=local
        ).eval()
    except Exception as error:  # it raises what it likes
        raise InputError(
            f"transformers cannot open the checkpoint {name} ({reason(error)}); only what it "
            "knows can be a baseline."
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
    except Exception:  # noqa: BLE001  # without one there are ids in and ids out
        tokenizer = None
    if tokenizer is not None:
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token  # masked anyway
        tokenizer.padding_side = "right" if config.is_encoder_decoder else "left"
    return model, tokenizer


def reason(error: Exception) -> str:
    """What an error of somebody else says, in a few words."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(".")
