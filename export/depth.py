"""What a checkpoint was trained for beside full depth: adapters, routers, a classifier, exits.

All of it is found by tensor names below the family's decoder layer and keys of ``config.json``:

- LoRA-Drop (arXiv 2601.02569): ``{layer}.lora_adapter.{A,B}.weight``, ``drop_cycle``,
  ``lora_rank``, ``lora_alpha``;
- FiRST (arXiv 2410.12513): ``router.{l}.{weight,bias}``;
- CALM (arXiv 2207.07061): ``meta.{weight,bias}``, or FREE's ``cm_head.{0,2}.weight``
  (arXiv 2310.05424);
- ``edgedec.exit_layers``: layers after which the head was trained to read, from 1;
- ``edgedec.depth``: policy -> default parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from edgedec.errors import CheckpointError
from edgedec.export.spec import is_number
from edgedec.export.weights import Array, Tensor, Tensors, Weights

Parameters = dict[str, Any]
CYCLE = 4
"""LoRA-Drop's period of refreshes, where the configuration does not say, and in its released code
the distance of layers that always run."""
THRESHOLD = 0.5
"""FiRST keeps layers whose router says at least this."""


@dataclass(frozen=True)
class LoraDrop:
    """LoRA-Drop's adapters: layers that have one and may be dropped, their rank, B A's factor."""

    layers: tuple[int, ...]
    rank: int
    alpha: float
    cycle: int


@dataclass(frozen=True)
class Routers:
    """FiRST's routers: layers that have one, and the score from which a layer is kept."""

    layers: tuple[int, ...]
    threshold: float


@dataclass(frozen=True)
class DepthFacts:
    """What a checkpoint offers to depth policies.

    Attributes:
        layers: of the decoder.
        lora_drop: LoRA-Drop's adapters, None without.
        routers: FiRST's routers, None without.
        meta: CALM's classifier of hidden states (``linear``), FREE's (``mlp``), None without.
        exits: numbers of layers after which the head was trained to read, without the last.
        defaults: policy -> parameters that the checkpoint sets.
    """

    layers: int
    lora_drop: LoraDrop | None = None
    routers: Routers | None = None
    meta: Literal["linear", "mlp"] | None = None
    exits: tuple[int, ...] = ()
    defaults: Mapping[str, Parameters] = field(default_factory=dict)


def read_depth(
    config: Mapping[str, Any], tensors: Tensors, layer: str, layers: int, width: int
) -> DepthFacts:
    """Recognise what a checkpoint offers.

    Args:
        config: its ``config.json``.
        tensors: under its own names, without the task head's prefix.
        layer: its name of a decoder layer, with ``{i}`` for the number.
        layers: of the decoder.
        width: of the hidden state.

    Raises:
        CheckpointError: tensors or keys of these names that cannot be used, by name.
    """
    defaults = _defaults(config)
    return DepthFacts(
        layers=layers,
        lora_drop=_lora_drop(config, tensors, layer, layers, width),
        routers=_routers(tensors, layers, width, defaults.get("first", {})),
        meta=_meta(tensors, width),
        exits=_exits(config, layers),
        defaults=defaults,
    )


def put_depth(facts: DepthFacts, tensors: Tensors, layer: str, weights: Weights) -> None:
    """Put what was recognised under our names.

    ``decoder.{i}.lora_adapter.{A,B}.weight`` (B times alpha / rank), ``router.{l}.weight`` with
    ``.bias``, and ``meta.weight`` with ``.bias`` or ``meta.{0,2}.weight``. Biases are always there.
    """
    if facts.lora_drop is not None:
        scale = facts.lora_drop.alpha / facts.lora_drop.rank
        for i in facts.lora_drop.layers:
            theirs, ours = _adapter(layer, i), f"decoder.{i}.lora_adapter"
            weights.put(f"{ours}.A.weight", tensors[f"{theirs}.A.weight"])
            up = tensors[f"{theirs}.B.weight"].map(partial(_scaled, scale))
            weights.put(f"{ours}.B.weight", up)
    if facts.routers is not None:
        for i in facts.routers.layers:
            _put_with_bias(f"router.{i}", tensors, weights)
    if facts.meta == "linear":
        _put_with_bias("meta", tensors, weights)
    elif facts.meta == "mlp":
        for part in ("0", "2"):
            weights.put(f"meta.{part}.weight", tensors[f"cm_head.{part}.weight"])


def _defaults(config: Mapping[str, Any]) -> dict[str, Parameters]:
    found = _own(config).get("depth", {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise CheckpointError(
            "'edgedec.depth' of config.json must be an object that gives each depth policy an "
            "object of parameters."
        )
    return {str(name): dict(parameters) for name, parameters in found.items()}


def _exits(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    found = _own(config).get("exit_layers", [])
    if not isinstance(found, list) or not all(_is_count(i, layers) for i in found):
        raise CheckpointError(
            f"'edgedec.exit_layers' of config.json must be numbers of layers from 1 to {layers}, "
            f"not {str(found)[:60]}."
        )
    return tuple(i for i in sorted(set(found)) if i < layers)


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    found = config.get("edgedec") or {}
    if not isinstance(found, dict):
        raise CheckpointError("'edgedec' of config.json is not an object.")
    return found


def _lora_drop(
    config: Mapping[str, Any], tensors: Tensors, layer: str, layers: int, width: int
) -> LoraDrop | None:
    pattern = re.escape(layer).replace(re.escape("{i}"), r"(\d+)") + r"\.lora_adapter\.(.+)"
    parts = _numbered(tensors, pattern, layers, {"A.weight", "B.weight"})
    if not parts:
        return None
    alpha, cycle = config.get("lora_alpha"), config.get("drop_cycle", CYCLE)
    if not is_number(alpha):
        raise CheckpointError(
            f"config.json has no number 'lora_alpha', by which {_adapter(layer, min(parts))} is "
            f"scaled, but {str(alpha)[:40]!r}."
        )
    if not _is_count(cycle, 1 << 16):
        raise CheckpointError(f"'drop_cycle' of config.json cannot be {str(cycle)[:40]!r}.")
    down = {i: _needed(tensors, f"{_adapter(layer, i)}.A.weight") for i in parts}
    rank = config.get("lora_rank", next(iter(down.values())).shape[0])
    if not _is_count(rank, width):
        raise CheckpointError(f"'lora_rank' of config.json cannot be {str(rank)[:40]!r}.")
    for i, tensor in down.items():
        _expect(tensor, (rank, width), "'lora_rank'")
        _expect(_needed(tensors, f"{_adapter(layer, i)}.B.weight"), (width, rank), "'lora_rank'")
    # The released code makes adapters everywhere, and uses those of three layers in four.
    everywhere = len(parts) == layers
    used = (i for i in sorted(parts) if i > 0 and (i % CYCLE or not everywhere))
    return LoraDrop(tuple(used), rank, float(alpha), cycle)


def _routers(tensors: Tensors, layers: int, width: int, defaults: Parameters) -> Routers | None:
    parts = _numbered(tensors, r"router\.(\d+)\.(.+)", layers, {"weight", "bias"})
    for i in parts:
        _expect_with_bias(tensors, f"router.{i}", width)
    threshold = defaults.get("threshold", THRESHOLD)
    if not is_number(threshold):
        raise CheckpointError(
            f"'edgedec.depth.first.threshold' of config.json cannot be {str(threshold)[:40]!r}."
        )
    return Routers(tuple(sorted(parts)), float(threshold)) if parts else None


def _meta(tensors: Tensors, width: int) -> Literal["linear", "mlp"] | None:
    linear = {name for name in tensors if name.startswith("meta.")}
    mlp = {name for name in tensors if name.startswith("cm_head.")}
    for name in sorted(linear | mlp):
        if name not in ("meta.weight", "meta.bias", "cm_head.0.weight", "cm_head.2.weight"):
            raise CheckpointError(
                f"tensor {tensors[name].name!r} is no part of a classifier that is known here "
                "(meta.weight and meta.bias, or cm_head.0.weight and cm_head.2.weight)."
            )
    if linear and mlp:
        raise CheckpointError("the checkpoint has both classifiers, meta and cm_head: keep one.")
    if linear:
        _expect_with_bias(tensors, "meta", width)
        return "linear"
    if mlp:
        _expect(_needed(tensors, "cm_head.0.weight"), (width, width), "the hidden width")
        _expect(_needed(tensors, "cm_head.2.weight"), (2, width), "the hidden width")
        return "mlp"
    return None


def _numbered(tensors: Tensors, pattern: str, layers: int, known: set[str]) -> dict[int, set[str]]:
    """Layer -> its tensors whose names match a pattern of number and rest."""
    parts: dict[int, set[str]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        number, part = match.groups()
        if part not in known:
            raise CheckpointError(
                f"tensor {tensor.name!r} is not known here (known are {', '.join(sorted(known))})."
            )
        if len(number) > 6 or int(number) >= layers or str(int(number)) != number:
            raise CheckpointError(
                f"tensor {tensor.name!r} is for layer {number[:9]}, but the decoder has {layers} "
                "layers."
            )
        parts.setdefault(int(number), set()).add(part)
    return parts


def _adapter(layer: str, i: int) -> str:
    return f"{layer.replace('{i}', str(i))}.lora_adapter"


def _needed(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"the checkpoint has no tensor {name!r}, but one that goes with it.")
    return tensors[name]


def _expect(tensor: Tensor, shape: tuple[int, ...], why: str) -> None:
    if tensor.shape != shape:
        raise CheckpointError(
            f"tensor {tensor.name!r} has shape {list(tensor.shape)}, but {why} of config.json asks "
            f"for {list(shape)}."
        )


def _expect_with_bias(tensors: Tensors, module: str, width: int) -> None:
    _expect(_needed(tensors, f"{module}.weight"), (1, width), "the hidden width")
    if f"{module}.bias" in tensors:
        _expect(tensors[f"{module}.bias"], (1,), "one score")


def _put_with_bias(module: str, tensors: Tensors, weights: Weights) -> None:
    weights.put(f"{module}.weight", tensors[f"{module}.weight"])
    none = Tensor(f"{module}.bias", (1,), "float32", partial(np.zeros, 1, np.float32))
    weights.put(f"{module}.bias", tensors.get(f"{module}.bias", none))


def _scaled(scale: float, values: Array) -> Array:
    return np.asarray(values * np.float32(scale), np.float32)


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
