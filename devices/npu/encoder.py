"""An encoder with fixed shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.npu.attention import MEMORY, Bias, SelfAttention
from edgedec.devices.npu.bias import Tables, find_tables
from edgedec.devices.npu.emit import Emitter, needed
from edgedec.devices.npu.heads import Heads, keys, values
from edgedec.devices.npu.known import NOTHING, computed, evaluate, frontier, varying
from edgedec.devices.npu.model import Target
from edgedec.devices.npu.operators import COMMON
from edgedec.devices.npu.writer import Writer
from edgedec.devices.passes.attention import UNSEEN
from edgedec.devices.passes.refusal import RefusalError


def static_encoder(
    model: ir.Model, length: int, heads: Heads, target: Target
) -> tuple[ir.Model, Tables]:
    """Write an encoder for sources of one length.

    Inputs: ``input_ids`` int32 ``[1, S]``, ``self.bias`` float32 ``[1, h, S or 1, S]``.
    Outputs: ``cross.{i}.key [1, kv, width, S]``, ``cross.{i}.value [1, kv, S, width]``.

    Args:
        model: as `standardise` gives it.
        length: S.
        heads: of the decoder's attention to the source.
        target: whose operators are written.

    Returns:
        The graph, and the tables that its bias is made of.

    Raises:
        RefusalError: it cannot be written.
    """
    graph = model.graph
    given = {str(value.name): value for value in graph.inputs}
    outputs = {str(value.name): value for value in graph.outputs if value.name != "cross.mask"}
    for name, value in outputs.items():
        if not name.startswith("cross."):
            raise RefusalError(value.producer(), f"{name!r} is for depth policies")
    ready = computed(varying(graph), NOTHING)
    nodes = needed(graph, outputs.values(), ready)
    attention = [node for node in nodes if (node.domain, node.op_type) == MEMORY]
    feeds = {name: np.ones((1, length), np.int64) for name in given}
    constants = evaluate(model, frontier(nodes, ready), feeds)
    _check_masks(model, attention, feeds)
    tables = find_tables(attention, length)
    w = Writer("encoder", target)
    ids = w.input("input_ids", ir.DataType.INT32, [1, length])
    rows = 1 if tables.silent else length
    shape = [1, tables.heads, rows, length]
    bias = Bias(w, w.input("self.bias", ir.DataType.FLOAT, shape), rows, length, tables)
    handlers = COMMON | {MEMORY: SelfAttention(bias)}
    emitter = Emitter(w, handlers, {given["input_ids"]: ids}, constants, {}, None, length)
    emitter.emit(nodes)
    for name, value in outputs.items():
        x = emitter.read(value)
        split = keys if name.endswith(".key") else values
        w.output(split(w, x, heads, length, str(x.name)), name)
    return w.model(model), tables


def _check_masks(
    model: ir.Model, attention: Iterable[ir.Node], feeds: Mapping[str, NDArray[np.int64]]
) -> None:
    """Refuse a mask that is more than the padding of the source, which the bias input has."""
    masks = dict.fromkeys(node.inputs[3] for node in attention)
    given = dict(feeds)
    given["attention_mask"] = np.ones_like(feeds["attention_mask"])
    given["attention_mask"][:, -1] = 0
    found = evaluate(model, [mask for mask in masks if mask is not None], given)
    for mask, hidden in found.items():
        if hidden[..., :-1].any() or (hidden[..., -1] > UNSEEN).any():
            raise RefusalError(mask.producer(), "attention's mask hides more than padding")
