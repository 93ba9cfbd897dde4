"""Families of models. One file each; a file here is found without being listed anywhere.

A family is data: how to read its ``config.json`` into a `ModelSpec`, and what its tensors are
called. It contains no graph code.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgedec.errors import CheckpointError
from edgedec.export.depth import DepthFacts, put_depth, read_depth
from edgedec.export.spec import ModelSpec
from edgedec.export.weights import Names, Tensors, Weights

Config = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """How to read one kind of checkpoint.

    Attributes:
        model_types: values of ``model_type`` in ``config.json`` that it covers.
        spec: reads the configuration (and the tensors, where only they tell).
        names: our module names -> the checkpoint's.
        layer: the checkpoint's name of a decoder layer, ``{i}`` standing for its number; what was
            trained for dynamic depth is found below it (`edgedec.export.depth`).
        adapt: last changes to the weights (permutations, computed tables), in place.
        generation: configuration keys with the family's defaults for decoding.
        permuted: modules of a layer whose rows or columns ``adapt`` puts into another order.
    """

    model_types: tuple[str, ...]
    spec: Callable[[Config, Tensors], ModelSpec]
    names: Callable[[ModelSpec], Names]
    layer: str
    adapt: Callable[[ModelSpec, Weights], None] | None = None
    generation: Callable[[Config], Config] | None = None
    permuted: tuple[str, ...] = ()


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make a family known under its model types."""
    for model_type in family.model_types:
        _FAMILIES[model_type] = family
    return family


def load_families() -> dict[str, Family]:
    """Every family by model type, importing the files of this folder once."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _FAMILIES


def family_of(config: Config) -> Family:
    """The family of a configuration; one sentence naming the alternatives when there is none."""
    families = load_families()
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in families:
        return families[model_type]
    raise CheckpointError(
        f"model_type {model_type!r} of config.json has no family here (there are "
        f"{', '.join(sorted(families))}): try 'edgedec export --via optimum' "
        "(pip install 'edgedec[optimum]')."
    )


def open_model(config: Config, tensors: Tensors) -> tuple[ModelSpec, Weights]:
    """Read a checkpoint's configuration and put its tensors under our names.

    Raises:
        CheckpointError: an unknown architecture, a setting we can't honour, or missing tensors.
    """
    family = family_of(config)
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "?") if isinstance(quantized, dict) else "?"
        raise CheckpointError(
            f"the checkpoint is quantized already ({method}): export the original it was made from."
        )
    tensors = _plain(tensors)
    try:
        spec = family.spec(config, tensors)
    except KeyError as error:
        raise CheckpointError(f"config.json has no {error.args[0]!r}, which it needs.") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(
            f"config.json has a value that is no model's ({error}): is the file damaged?"
        ) from error
    layers = {"decoder": spec.decoder.layers}
    if spec.encoder is not None:
        layers["encoder"] = spec.encoder.layers
    weights = Weights(tensors, family.names(spec), layers)
    _check_kept(family, tensors, weights)
    put_depth(depth_of(config, tensors, spec), tensors, family.layer, weights)
    if family.adapt is not None:
        family.adapt(spec, weights)
    if spec.tied_head:
        weights.alias("head.weight", "decoder.embed.weight")
    return spec, weights


def depth_of(config: Config, tensors: Tensors, spec: ModelSpec) -> DepthFacts:
    """What a checkpoint offers to depth policies; raises CheckpointError as `read_depth`."""
    layer = family_of(config).layer
    return read_depth(config, _plain(tensors), layer, spec.decoder.layers, spec.d_model)


def _plain(tensors: Tensors) -> Tensors:
    """Tensors without the task head's prefix, with and without which the same model is saved."""
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def _check_kept(family: Family, tensors: Tensors, weights: Weights) -> None:
    """Refuse adapters that are to be kept beside a matrix that no graph computes as it is stored.

    Raises:
        CheckpointError: with the first adapter of a head, or of a matrix that is put in order.
    """
    kept = {weights[name].name: name for name in weights if name.endswith(".lora_A.weight")}
    for name, tensor in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        _, number, module = (*kept.get(tensor.name, "").split(".", 2), "", "")[:3]
        module = module.removesuffix(".lora_A.weight")
        if not number.isdigit() or module in family.permuted:
            raise CheckpointError(
                f"tensor {tensor.name!r} adapts a matrix beside which no adapter can be kept: use "
                "--lora merge."
            )
