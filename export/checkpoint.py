"""Open a checkpoint without a model class: Hugging Face folder or hub id, or Mu's ``.pt``."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import CheckpointError, MissingDependencyError
from edgedec.export.peft import CONFIG, LoraFacts, adapter_file, apply_adapter
from edgedec.export.weights import Tensor, Tensors
from edgedec.runtime.manifest import Source

logger = logging.getLogger(__name__)

PICKLES = ("pytorch_model*.bin", "adapter_model.bin")
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "LICENSE*", "NOTICE*")
SAFETENSORS_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; tensors are read when they are needed."""

    folder: Path
    config: dict[str, Any]
    generation_config: dict[str, Any] | None
    tensors: Tensors
    source: Source
    lora: LoraFacts | None = None
    """What an adapter in PEFT's format does to the tensors; None without."""


def open_checkpoint(
    name: str | Path,
    revision: str | None = None,
    *,
    base: str | Path | None = None,
    keep_lora: bool = False,
) -> Checkpoint:
    """Open a folder, a Mu ``.pt`` file, or a hub id such as ``google/flan-t5-small``.

    A folder may hold an adapter in PEFT's format beside the weights, or an adapter alone.

    Args:
        name: a path, or a hub id when no such path exists.
        revision: branch, tag or commit of a hub id.
        base: of an adapter alone, what it was trained on; by default the local folder that its
            configuration names. Nothing is fetched because a file names it.
        keep_lora: put an adapter beside the weights instead of adding it to them.

    Raises:
        CheckpointError: nothing there, or files that are missing, cut short or not what they say.
        MissingDependencyError: pickled weights (``.bin``, ``.pt``) without torch.
    """
    folder, label, commit = _found(name, revision)
    file = adapter_file(folder)
    alone = file is not None and not _has_weights(folder)
    if base is not None and not alone:
        raise CheckpointError(
            f"--base is for adapters in PEFT's format; {label!r} "
            + ("has weights of its own." if file is not None else "is none.")
        )
    if not alone:
        under = _open_file(folder, label) if folder.is_file() else _open(folder, label, commit)
    else:
        base = _base_of(folder, label) if base is None else Path(base)
        if adapter_file(base) is not None and not _has_weights(base):
            raise CheckpointError(f"the base of {label!r} is an adapter itself: merge that first.")
        under = open_checkpoint(base)
    if file is None:
        return under
    config = read_json(folder / CONFIG)
    named = config.get("base_model_name_or_path")
    if not alone and named not in (None, "", ".", str(folder)):
        logger.warning(
            "the adapter in %s was trained on %s; it is used with the weights beside it.",
            label,
            named,
        )
    stored = _read_weights(file)
    tensors, facts = apply_adapter(config, stored, under.tensors, keep=keep_lora)
    digest = hashlib.sha256((under.source.sha256 + _hash_files([folder / CONFIG, file])).encode())
    source = Source(label, commit, digest.hexdigest())
    return replace(under, tensors=tensors, source=source, lora=facts)


def _has_weights(folder: Path) -> bool:
    patterns = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin")
    return any(any(folder.glob(pattern)) for pattern in (*patterns, "model.pt"))


def _base_of(folder: Path, label: str) -> Path:
    """The local folder that an adapter names as what it was trained on."""
    named = read_json(folder / CONFIG).get("base_model_name_or_path")
    if isinstance(named, str) and named:
        path = folder / Path(named).expanduser()  # an absolute path stays what it is
        try:
            if path.exists():
                return path
        except OSError:  # too long for a path
            pass
    raise CheckpointError(
        f"{label!r} is an adapter of {str(named)[:80]!r}, which is no local folder: give the base "
        "with --base, a folder or a hub id."
    )


def _found(name: str | Path, revision: str | None) -> tuple[Path, str, str | None]:
    """The folder or file that is meant, what to call it, and the hub's commit."""
    path = Path(name)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise CheckpointError(f"{str(name)[:80]!r} cannot be read: {error.strerror}.") from error
    if is_file:
        return path, str(name), None
    if is_folder:
        if revision is not None:
            raise CheckpointError("--revision is for hub ids; a folder has no revisions.")
        return path, str(name), None
    text = str(name)
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or text.endswith("/"):
        raise CheckpointError(
            f"{text!r} is neither a folder nor a file, nor a hub id such as 'google/flan-t5-small'."
        )
    folder = _download(text, revision)
    # The snapshot's folder is named after the commit that the revision stands for.
    return folder, text, folder.name


def _open_file(path: Path, name: str) -> Checkpoint:
    if path.suffix not in (".pt", ".bin"):
        raise CheckpointError(
            f"{name!r} is a file: give the folder that holds config.json and the weights, "
            "or Mu's model.pt."
        )
    config = path.parent / "config.json"
    tensors = _read_pickle(path)
    return Checkpoint(
        folder=path.parent,
        # Mu publishes its weights without a configuration file, and its class names no type.
        config={"model_type": "mu", **(read_json(config) if config.exists() else {})},
        generation_config=None,
        tensors=tensors,
        source=Source(name, None, _hash_files([path])),
    )


def _open(folder: Path, name: str, revision: str | None) -> Checkpoint:
    if (folder / "edgedec.json").exists():
        raise CheckpointError(f"{name!r} is a bundle already: use 'edgedec run {name} TEXT'.")
    if (folder / "model.pt").exists() and not any(
        any(folder.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin")
    ):
        return _open_file(folder / "model.pt", name)
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{name!r} has no config.json: it is not a checkpoint folder.")
    config = read_json(folder / "config.json")
    tensors, files = _open_weights(folder)
    generation = folder / "generation_config.json"
    return Checkpoint(
        folder=folder,
        config=config,
        generation_config=read_json(generation) if generation.exists() else None,
        tensors=tensors,
        source=Source(name, revision, _hash_files([folder / "config.json", *files])),
    )


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(patterns: tuple[str, ...]) -> Path:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))

    try:
        folder = fetch(HUB_FILES)
        if not any(folder.glob("*.safetensors")):
            folder = fetch((*HUB_FILES, *PICKLES))
    except HFValidationError as error:
        raise CheckpointError(f"{hub_id!r} is neither a folder nor a valid hub id.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{hub_id!r} is no local folder and could not be fetched from the hub{at}: {reason}"
        ) from error
    return folder


def _open_weights(folder: Path) -> tuple[Tensors, list[Path]]:
    for stem, suffix, read in (
        ("model", "safetensors", _read_safetensors),
        ("pytorch_model", "bin", _read_pickle),
    ):
        index = folder / f"{stem}.{suffix}.index.json"
        single = folder / f"{stem}.{suffix}"
        if single.exists():
            return read(single), [single]
        if index.exists():
            shards = _shards(index)
            merged: dict[str, Tensor] = {}
            for shard in shards:
                merged.update(read(shard))
            return merged, shards
    raise CheckpointError(
        f"{str(folder)!r} has no weights: expected model.safetensors, "
        "model.safetensors.index.json with its shards, or pytorch_model.bin."
    )


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index.name} has no 'weight_map': download it again.")
    shards = []
    for name in sorted({str(n) for n in table.values()}):
        shard = index.parent / name
        if Path(name).name != name:
            raise CheckpointError(f"{index.name} names the shard {name!r} outside its folder.")
        if not shard.exists():
            raise CheckpointError(f"shard {name!r} of {index.name} is missing: download it again.")
        shards.append(shard)
    return shards


def _read_safetensors(path: Path) -> Tensors:
    import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy
    from safetensors import SafetensorError, safe_open

    try:
        file: Any = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is damaged or cut short ({error}): download it again."
        ) from error
    tensors = {}
    for name in file.keys():  # noqa: SIM118  (it is no mapping)
        stored = file.get_slice(name)
        kind = stored.get_dtype()
        if kind not in SAFETENSORS_TYPES and name.endswith(".weight"):
            raise CheckpointError(
                f"tensor {name!r} of {path.name} is stored as {kind}, and edgedec reads "
                f"{', '.join(SAFETENSORS_TYPES)}: use the checkpoint before it was quantized."
            )
        if kind in SAFETENSORS_TYPES:
            tensors[name] = Tensor(
                name=name,
                shape=tuple(stored.get_shape()),
                dtype=SAFETENSORS_TYPES[kind],
                load=partial(file.get_tensor, name),
            )
    return tensors


def _read_weights(path: Path) -> Tensors:
    return (_read_safetensors if path.suffix == ".safetensors" else _read_pickle)(path)


def _read_pickle(path: Path) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"{path.name} is a pickled checkpoint and needs torch: "
            "pip install 'edgedec[torch]', or use a checkpoint in safetensors."
        ) from error
    try:
        # Files of torch before 1.6 are no archives and cannot be mapped; the hub has many.
        archive = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # torch raises whatever the damaged archive made it stumble over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path.name} cannot be read as a weights-only checkpoint ({first_sentence(reason)})."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model_state_dict"), dict):
        state = state["model_state_dict"]  # Mu's training checkpoints
    if not isinstance(state, dict):
        raise CheckpointError(f"{path.name} holds no dictionary of tensors.")
    return {
        name: Tensor(
            name=name,
            shape=tuple(value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
            load=partial(_to_numpy, value),
        )
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def first_sentence(text: str) -> str:
    """The beginning of a library's message, which may go on for a page."""
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0][:300].rstrip(".")


def _to_numpy(tensor: Any) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.float().numpy()
    return values


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CheckpointError with the file's name."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} is not a JSON object.")
    return value


def _hash_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
