"""LoRA adapters in PEFT's format: merged into the weights of their base, or kept beside them.

``adapter_config.json`` says how, ``adapter_model.safetensors`` holds for each adapted module
``base_model.model.{module}.lora_A.weight`` [r, in] and ``.lora_B.weight`` [out, r], and whole
tensors under ``base_model.model.{name}`` (biases, modules to save). The product B A is scaled by
``lora_alpha / r`` (arXiv 2106.09685), with ``use_rslora`` by ``lora_alpha / sqrt(r)``
(arXiv 2312.03732), and added to the module's weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgedec.errors import CheckpointError
from edgedec.export.spec import is_number
from edgedec.export.weights import Array, Tensor, Tensors

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
HOW = ("merge", "keep")
KNOWN_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base as it is; others subtract from it."""
REFUSED = {
    "use_dora": "DoRA's magnitudes",
    "use_qalora": "QALoRA",
    "lora_bias": "biases of adapters",
    "layer_replication": "replicated layers",
    "trainable_token_indices": "single trained tokens",
    "target_parameters": "adapters of bare parameters",
    "alora_invocation_tokens": "adapters that act after certain tokens only",
    "arrow_config": "a choice between adapters",
}
"""Keys that change what is computed, and what they stand for; any value but none is refused."""


@dataclass(frozen=True)
class Adapter:
    """One module's adapter: ``weight + scale * up @ down``."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class LoraFacts:
    """What an adapter changes.

    Attributes:
        ranks: of the adapters, each once, in order.
        modules: how many modules have an adapter.
        replaced: how many tensors are stored whole.
        kept: whether the adapters stay beside the weights.
    """

    ranks: tuple[int, ...]
    modules: int
    replaced: int
    kept: bool


def adapter_file(folder: Path) -> Path | None:
    """The file of a folder's adapter; None where it holds no adapter.

    Raises:
        CheckpointError: it has the configuration of one, but not its weights.
    """
    if not (folder / CONFIG).is_file():
        return None
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{str(folder)!r} has {CONFIG} but no {FILES[0]}: the adapter's weights are missing."
    )


def apply_adapter(
    config: Mapping[str, Any], stored: Tensors, base: Tensors, *, keep: bool
) -> tuple[dict[str, Tensor], LoraFacts]:
    """The tensors of a base with an adapter, read and added when they are needed.

    Args:
        config: ``adapter_config.json``.
        stored: the adapter's tensors under their own names.
        base: the base's tensors.
        keep: put the adapters beside the weights, as ``{module}.lora_A.weight`` and
            ``{module}.lora_B.weight``, the latter scaled.

    Raises:
        CheckpointError: another kind of adapter, or tensors that do not fit the base.
    """
    _check_config(config)
    modules, whole = _sorted_out(config, stored)
    turned = bool(config.get("fan_in_fan_out"))
    if keep and turned:
        raise CheckpointError(f"{CONFIG} says fan_in_fan_out: use --lora merge.")
    # A base is saved with and without the task head's prefix.
    stems = {name.removeprefix("model."): name for name in base}
    tensors = dict(base)
    for name, tensor in whole.items():
        target = stems.get(name.removeprefix("model."))
        if target is None or base[target].shape != tensor.shape:
            raise CheckpointError(
                f"tensor {tensor.name!r} of the adapter replaces {name!r}, which its base does "
                "not have in that shape: is it another base?"
            )
        tensors[target] = tensor
    for module, adapter in modules.items():
        target = stems.get(f"{module}.weight".removeprefix("model."))
        if target is None:
            raise CheckpointError(
                f"tensor {adapter.down.name!r} adapts {module!r}, which its base does not have: is "
                "it another base?"
            )
        _check_shapes(adapter, tensors[target], turned=turned)
        if keep:
            stem = target.removesuffix(".weight")
            scaled = adapter.up.map(partial(np.multiply, np.float32(adapter.scale)))
            tensors |= {f"{stem}.lora_A.weight": adapter.down, f"{stem}.lora_B.weight": scaled}
        else:
            tensors[target] = tensors[target].map(partial(_merged, adapter, turned))
    ranks = tuple(sorted({adapter.down.shape[0] for adapter in modules.values()}))
    return tensors, LoraFacts(ranks, len(modules), len(whole), keep)


def _merged(adapter: Adapter, turned: bool, weight: Array) -> Array:
    change = adapter.up.read() @ adapter.down.read()
    return np.asarray(weight + np.float32(adapter.scale) * (change.T if turned else change))


def _check_config(config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{CONFIG} is of type {str(kind)[:40]!r}, and only LORA can be merged: merge it with "
            "its own tools first."
        )
    for key, what in REFUSED.items():
        if config.get(key):
            raise CheckpointError(
                f"{CONFIG} asks for {what} ({key!r}), which is not supported: merge the adapter "
                "with peft first (merge_and_unload)."
            )
    init = config.get("init_lora_weights", True)
    if init not in KNOWN_INITS:
        raise CheckpointError(
            f"{CONFIG} says init_lora_weights {str(init)[:40]!r}, which changes the base: convert "
            "the adapter to plain LoRA with peft first."
        )
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise CheckpointError(f"{key!r} of {CONFIG} is not an object.")


def _sorted_out(
    config: Mapping[str, Any], stored: Tensors
) -> tuple[dict[str, Adapter], dict[str, Tensor]]:
    """Adapters by module, and whole tensors by name."""
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if not name.startswith(PREFIX):
            raise CheckpointError(
                f"tensor {name!r} of the adapter does not begin with {PREFIX!r}: it is not in "
                "PEFT's format."
            )
        path = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", path)
        if match is not None:
            halves.setdefault(match[1], {})[match[2]] = tensor
        elif "lora_" in path:
            raise CheckpointError(
                f"tensor {name!r} of the adapter is of a kind that is not supported (embeddings, "
                "DoRA): merge the adapter with peft first (merge_and_unload)."
            )
        else:
            whole[path.replace(".modules_to_save.", ".").replace(".default.", ".")] = tensor
    if not halves:
        raise CheckpointError("the adapter has no lora_A and lora_B: is its file complete?")
    modules = {}
    for module, half in halves.items():
        if len(half) != 2:
            (there,) = half.values()
            missing = "lora_B" if "A" in half else "lora_A"
            raise CheckpointError(f"the adapter has {there.name!r} but no {missing} of {module!r}.")
        modules[module] = _adapter(config, module, half["A"], half["B"])
    return modules, whole


def _adapter(config: Mapping[str, Any], module: str, down: Tensor, up: Tensor) -> Adapter:
    rank = _setting(config, "rank_pattern", "r", module, _is_rank)
    alpha = _setting(config, "alpha_pattern", "lora_alpha", module, is_number)
    if len(down.shape) != 2 or down.shape[0] != rank:
        raise CheckpointError(
            f"tensor {down.name!r} has shape {list(down.shape)}, but {CONFIG} says rank {rank}."
        )
    root = math.sqrt(rank) if config.get("use_rslora") else rank
    return Adapter(down, up, alpha / root)


def _setting(
    config: Mapping[str, Any], pattern_key: str, key: str, module: str, fits: Callable[[Any], bool]
) -> Any:
    """A module's value: that of the first pattern that matches its last part, else the common."""
    value, place = config.get(key), key
    for pattern, special in (config.get(pattern_key) or {}).items():
        try:
            matches = re.match(rf"(.*\.)?({pattern})$", module)
        except (re.error, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{pattern_key!r} of {CONFIG} has a pattern that is none: {str(pattern)[:40]!r}."
            ) from error
        if matches:
            value, place = special, pattern_key
            break
    if not fits(value):
        raise CheckpointError(f"{place!r} of {CONFIG} cannot be {str(value)[:40]!r}.")
    return value


def _check_shapes(adapter: Adapter, weight: Tensor, *, turned: bool) -> None:
    if len(adapter.up.shape) != 2 or adapter.up.shape[1] != adapter.down.shape[0]:
        raise CheckpointError(
            f"tensor {adapter.up.name!r} has shape {list(adapter.up.shape)}, which does not fit "
            f"{adapter.down.name!r} of rank {adapter.down.shape[0]}."
        )
    shape = (adapter.up.shape[0], adapter.down.shape[1])
    if (shape[::-1] if turned else shape) != weight.shape:
        raise CheckpointError(
            f"tensor {adapter.down.name!r} and its lora_B make a matrix of {list(shape)}, but "
            f"{weight.name!r} has shape {list(weight.shape)}: is it another base?"
        )


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 16
