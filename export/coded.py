"""A model with codes, computed another way: what graphs with codes are checked against.

The floating-point graphs, which were held against an implementation of their own when they were
exported, with the weights that the codes stand for. Where products round their inputs, so does
this, by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.passes.linear import Linear
from edgedec.export.learn import find_sites
from edgedec.export.route import Graphs, Ids, Logits
from edgedec.quantize.calibration.inputs import Inputs
from edgedec.quantize.calibration.segments import Program, cut
from edgedec.quantize.calibration.walk import Walk
from edgedec.quantize.method import Array
from edgedec.quantize.pool import Pool
from edgedec.quantize.text.batches import Batch

CODES = "codes"
Values = Callable[[str, Collection[str]], dict[str, Array]]
"""``(component, names of initializers) -> what they are now``."""


def coded_program(graphs: Graphs, outputs: Sequence[str] = ("logits",)) -> Program:
    """The graphs as a program whose products read values that nothing else reads.

    Changes the graphs: what rounds a product's input must not round a residual sum with it.

    Args:
        graphs: with floating-point weights.
        outputs: what to compute in the end.
    """
    for component, some in find_sites(graphs).items():
        copies: dict[ir.Value, ir.Value] = {}
        for site in some:
            if isinstance(site, Linear):
                _read_copy(graphs[component].graph, site, copies)
    return cut(graphs, find_sites(graphs), outputs)


def coded_logits(
    program: Program, values: Values, rounded: Callable[[Array], Array], pool: Pool
) -> Logits:
    """The logits of a program with other weights.

    Args:
        program: as `coded_program` makes it.
        values: what the weights are.
        rounded: what products make of their inputs ``[..., K]``.
        pool: threads.
    """

    def logits(source: Ids | None, mask: Ids | None, target: Ids) -> Array:
        batch = Batch(
            source=source,
            source_mask=mask,
            target=target,
            labels=target,
            target_mask=np.ones(target.shape, np.bool_),
        )
        return coded_outputs(program, values, rounded, batch, pool)[0]

    return logits


def coded_outputs(
    program: Program,
    values: Values,
    rounded: Callable[[Array], Array],
    inputs: Inputs,
    pool: Pool,
) -> list[NDArray[Any]]:
    """The outputs of a program with other weights, on some inputs; as `coded_logits`."""
    walk = Walk(program, [inputs], pool, paths=(CODES,))
    for step in walk:
        step.use(CODES, values(step.component, {m.name for m in step.matrices}))
        if step.has_inputs:
            step.change_inputs(CODES, rounded)
    return walk.outputs(CODES, 0)


def _read_copy(graph: ir.Graph, linear: Linear, copies: dict[ir.Value, ir.Value]) -> None:
    """Let a product read a copy of its input; products of one input share it."""
    x = linear.node.inputs[0]
    assert x is not None
    if x not in copies:
        node = ir.node("Identity", [x], name=f"{linear.name}.input")
        node.outputs[0].name = f"{linear.name}.input"
        node.outputs[0].type, node.outputs[0].shape = x.type, x.shape
        graph.insert_before(linear.node, node)
        copies[x] = node.outputs[0]
    linear.node.replace_input_with(0, copies[x])
