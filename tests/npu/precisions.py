"""What tests of precisions share: a small model in each of them, and how to run its graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from tests.npu.small import Array, feeds, static_model

from edgedec.devices.npu.model import StaticModel
from edgedec.devices.npu.precision import (
    PRECISIONS,
    Range,
    Ranges,
    apply_precision,
    observe,
    round_weight,
    weight_bits,
    weights_of,
)
from edgedec.devices.options import session_options
from edgedec.runtime.manifest import Grid

SEEDS = range(12)


def run(model: ir.Model, fed: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of a graph by ONNX Runtime, every operator computed as it is written."""
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    options = session_options(1, shared=False, records=None)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(None, dict(fed))
    return dict(zip([output.name for output in session.get_outputs()], values, strict=True))


def stored(model: StaticModel, component: str, fed: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs as a graph wants them: float16, or integers of the manifest's grids."""
    found = {}
    for port in model.models[component].graph.inputs:
        name, values = str(port.name), fed[str(port.name)]
        assert port.dtype is not None
        dtype = port.dtype.numpy()
        grid = model.static.grids.get(name)
        if grid is not None:
            limits = np.iinfo(dtype)
            values = np.rint(values / grid.scale) + grid.zero_point
            values = np.clip(values, limits.min, limits.max)
        found[name] = values.astype(dtype)
    return found


def numbers(values: Mapping[str, Array], grids: Mapping[str, Grid]) -> dict[str, Array]:
    """Outputs as float32."""
    found = {}
    for name, value in values.items():
        grid = grids.get(re.sub("^new", "past", name), Grid(1.0, 0))
        found[name] = (value.astype(np.float32) - grid.zero_point) * np.float32(grid.scale)
    return found


def computed(model: StaticModel, component: str, seed: int) -> dict[str, Array]:
    fed = stored(model, component, feeds(component, seed))
    return numbers(run(model.models[component], fed), model.static.grids)


def difference(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """The largest root mean square of a float output's error, relative to that of its values."""
    return max(
        float(np.sqrt(np.square(found[name] - value).mean() / np.square(value).mean()))
        for name, value in wanted.items()
        if name != "next_token"
    )


@cache
def observed(style: str, precision: str = "") -> dict[str, dict[str, Range]]:
    """Ranges of the model's values over `SEEDS`, with the weights that a precision leaves."""
    ranges = {}
    reference = rounded(style, precision) if precision else static_model(style)
    for component, model in reference.models.items():
        found = Ranges()
        copy = observe(model)
        for seed in SEEDS:
            fed = feeds(component, seed)
            found.update({**fed, **run(copy, fed)})
        ranges[component] = found.found()
    return ranges


def applied(style: str, precision: str, kv: str, eight: tuple[str, ...] = ()) -> StaticModel:
    model = static_model(style)
    calibrated = precision if PRECISIONS[precision].calibrated else ""
    apply_precision(model, precision, kv=kv, eight=eight, ranges=observed(style, calibrated))
    return model


def rounded(style: str, precision: str, eight: tuple[str, ...] = ()) -> StaticModel:
    """The float model with the weights that a precision leaves of it."""
    model = static_model(style)
    for weight in weights_of(model):
        bits = weight_bits(PRECISIONS[precision], weight, eight)
        values = round_weight(weight.read(model), weight.role, precision, bits)
        for component in weight.nodes:
            initializer = model.models[component].graph.initializers[weight.name]
            laid = values.T if weight.transposed else values
            initializer.const_value = ir.tensor(np.ascontiguousarray(laid), name=weight.name)
    return model
