"""Store a static model's weights, caches and activations in a precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgedec.devices.npu.model import StaticModel
from edgedec.devices.npu.precision.channels import round_channels, round_two_levels
from edgedec.devices.npu.precision.constants import Packed, remove_unread
from edgedec.devices.npu.precision.embedding import round_rows, use_rows
from edgedec.devices.npu.precision.halves import round_half, store_halves
from edgedec.devices.npu.precision.kv import use_half_caches, use_integer_caches
from edgedec.devices.npu.precision.nbits import round_blocks, use_blocks
from edgedec.devices.npu.precision.precisions import (
    Precision,
    block_size,
    get_precision,
    weight_bits,
)
from edgedec.devices.npu.precision.qdq import quantize
from edgedec.devices.npu.precision.ranges import Range
from edgedec.devices.npu.precision.weights import Weight, find_readers, weights_of
from edgedec.errors import InputError
from edgedec.quantize.matrices import Role


def apply_precision(
    model: StaticModel,
    precision: str,
    *,
    kv: str,
    eight: Collection[str] = (),
    ranges: Mapping[str, Mapping[str, Range]] | None = None,
) -> None:
    """Store a model's numbers in a precision, in place.

    Args:
        model: graphs in float32; they change, and ``model.static`` gets the grids of ports, the
            weights of ``eight`` and what re-expressing codes lost.
        precision: a name of `PRECISIONS`.
        kv: how keys and values travel, one of the precision's ``kv``.
        eight: names of weights that get 8 bits in a precision of 4.
        ranges: component -> value -> range, observed in these float graphs (`observe`); of the
            caches alone where only they become integers (`Precision.needs_ranges`).

    Raises:
        InputError: no such precision; 4 bits for weights that were codes; or a range is missing.
    """
    spec = get_precision(precision, kv)
    weights = weights_of(model)
    _check_codes(model, spec)
    model.static = replace(
        model.static,
        eight=tuple(_places(weights, eight)) if spec.bits < 8 else (),
        projection=_losses(model, weights, spec),
    )
    if not spec.calibrated:
        _store_weights(model, weights, spec, eight)
        if kv == "fp16":
            use_half_caches(model)
        else:
            use_integer_caches(model, kv, ranges or {})
    else:
        quantize(model, weights, spec, kv=kv, eight=eight, ranges=ranges or {})
    for part in model.models.values():
        remove_unread(part.graph)


def round_weight(
    values: NDArray[np.float32], role: Role, precision: str, bits: int
) -> NDArray[np.float32]:
    """The values that a weight has on the device.

    Args:
        values: ``[rows, columns]``; a product sums over columns.
        role: what the weight is for.
        precision: a name of `PRECISIONS`.
        bits: 4, 8 or 16 (`weight_bits`).

    Returns:
        float32 ``[rows, columns]``.
    """
    spec = get_precision(precision)
    if bits == 16:
        return round_half(values)
    if role == "embedding":
        return round_rows(values, bits)
    if spec.blocks and not spec.calibrated:
        return round_blocks(values, bits)
    if spec.blocks and bits == 4 and block_size(values.shape[1]):
        return round_two_levels(values)
    return round_channels(values, bits)


def _check_codes(model: StaticModel, spec: Precision) -> None:
    if spec.bits < 8 and model.coded:
        raise InputError(
            f"weights that are codes cannot be stored in 4 bits ({spec.name}) without a second "
            f"loss: export the checkpoint itself, or choose --quant nbits8."
        )


def _places(weights: list[Weight], eight: Collection[str]) -> list[str]:
    """``component/module path`` of weights, in the order of the graphs."""
    return [
        f"{component}/{weight.path}"
        for weight in weights
        if weight.name in eight
        for component in weight.nodes
    ]


def _losses(model: StaticModel, weights: list[Weight], spec: Precision) -> dict[str, float]:
    """Module path -> squared error of storing what codes stand for, by its squares."""
    losses = {}
    for weight in weights:
        if weight.name in model.coded:
            values = weight.read(model)
            bits = weight_bits(spec, weight)
            error = round_weight(values, weight.role, spec.name, bits) - values
            power = float(np.square(values, dtype=np.float64).sum())
            squared = float(np.square(error, dtype=np.float64).sum())
            losses[weight.path] = squared / power if power else 0.0
    return losses


def _store_weights(
    model: StaticModel, weights: list[Weight], spec: Precision, eight: Collection[str]
) -> None:
    packed = Packed(model)
    by_name = {(weight.name, weight.role == "embedding"): weight for weight in weights}
    # all are read before the first constant goes: graphs share them
    readers = {name: find_readers(part.graph) for name, part in model.models.items()}
    for component, part in model.models.items():
        for reader in readers[component]:
            weight = by_name[str(reader.stored.name), reader.role == "embedding"]
            bits = weight_bits(spec, weight, eight)
            store = use_rows if weight.role == "embedding" else use_blocks
            if bits < 16:
                store(part.graph, reader, weight, bits, packed)
    for part in model.models.values():
        remove_unread(part.graph)
        store_halves(part.graph)
