"""What goes in and out of a resident graph, and the shapes that it is made for."""

from __future__ import annotations

import onnx_ir as ir

from edgedec.devices.gpu.lowering.edit import Editor
from edgedec.devices.gpu.lowering.model import HALF, Profile, Shape
from edgedec.devices.passes.match import axis
from edgedec.runtime.manifest import Limits
from edgedec.runtime.resident.limits import PASS, SCORED

INT64 = ir.DataType.INT64
USUAL = 64
"""Tokens of a usual source and of a usual prompt."""


def narrow_outputs(editor: Editor) -> None:
    """Give what an encoder remembers in float16."""
    for value in list(editor.graph.outputs):
        name = str(value.name)
        if name.startswith("cross.") and name != "cross.mask":
            editor.swap_output(value, editor.cast(value, HALF))


def add_next(editor: Editor) -> None:
    """Add what the next step's inputs are, as outputs, so that a device can feed itself."""
    graph = editor.graph
    given = {str(value.name): value for value in graph.inputs}
    last = graph[-1]
    lengths, positions = given["past_length"], given.get("positions")
    new = editor.op(last, "Shape", [graph.inputs[0]], "next.new", INT64, start=1, end=2)
    made = [(editor.op(last, "Add", [lengths, new], "next.past_length", INT64), lengths)]
    if positions is not None:
        one = editor.shape(1)
        made.append((editor.op(last, "Add", [positions, one], "next.positions", INT64), positions))
    for value, like in made:
        value.shape = like.shape
        graph.outputs.append(value)


def profiles(graph: ir.Graph, limits: Limits) -> tuple[Profile, ...]:
    """The shapes to make an engine for: single tokens, and more of them; an encoder has one."""
    names = {str(value.name) for value in graph.inputs}
    most = min(limits.target, PASS)
    new = [(1, 1, 1), (2, min(USUAL, most), most)]
    if "attention_mask" in names:
        most = limits.source or most
        new = [(1, min(USUAL, most), most)]
    elif most == 1:
        new = new[:1]
    return tuple(_profile(graph, limits, tokens) for tokens in new)


def _profile(graph: ir.Graph, limits: Limits, new: Shape) -> Profile:
    source = limits.source or 1
    scored = min(new[2], SCORED)
    lengths = {
        "batch": (1, 1, limits.rows),
        "new": new,
        "source": (1, min(USUAL, source), source),
        "picked": (1, 1, scored),
    }
    if "attention_mask" in {str(value.name) for value in graph.inputs}:
        lengths["source"] = new
    found = {}
    for value in graph.inputs:
        assert value.shape is not None
        axes = [axis(value, i) for i in range(len(value.shape))]
        spans = [(a, a, a) if isinstance(a, int) else lengths[str(a)] for a in axes]
        low, usual, high = (tuple(span[i] for span in spans) for i in range(3))
        found[str(value.name)] = low, usual, high
    return found
