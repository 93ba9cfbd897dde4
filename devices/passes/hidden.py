"""Hidden units of feed-forward blocks: channels between matrices, which can stand in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.passes.linear import Linear
from edgedec.devices.passes.match import constant

CHANNELWISE = frozenset(
    {
        *("Add", "Div", "Mul", "Sub"),
        *("Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg", "Pow"),
        *("Relu", "Sigmoid", "Softplus", "Sqrt", "Swish", "Tanh"),
    }
)
"""Operators that compute a channel of what they give from the same channel of what they take."""


@dataclass(frozen=True, eq=False)
class Hidden:
    """Units that some products compute, and that nothing but one product reads.

    Attributes:
        producers: their rows are the units, as are the values that are added to them.
        consumer: its columns are the units.
    """

    producers: tuple[Linear, ...]
    consumer: Linear


def find_hidden(linears: Sequence[Linear]) -> list[Hidden]:
    """All hidden units between the products of a graph."""
    by_output = {linear.output: linear for linear in linears}
    return [
        Hidden(producers, linear)
        for linear in linears
        if _is_own(linear) and (producers := _producers(linear, by_output))
    ]


def reorder(hidden: Hidden, order: NDArray[np.int32]) -> None:
    """Let unit j be what unit ``order[j]`` was; what the block computes stays the same."""
    for linear in hidden.producers:
        _take(linear.matrix.stored, order, 1 if linear.matrix.transposed else 0)
        if linear.bias is not None:
            _take(linear.bias, order, -1)
    consumer = hidden.consumer.matrix
    _take(consumer.stored, order, 0 if consumer.transposed else 1)


def _producers(consumer: Linear, by_output: dict[ir.Value, Linear]) -> tuple[Linear, ...]:
    """The products behind a product's input; none where anything else reads or computes it."""
    readers = {consumer.node}
    flattened = consumer.node.inputs[0]
    if flattened is not consumer.x:
        assert flattened is not None
        node = flattened.producer()
        if node is None or len(flattened.uses()) != 1:
            return ()
        readers.add(node)
    found: dict[ir.Value, Linear] = {}
    seen: set[ir.Value] = set()
    todo = [consumer.x]
    while todo:
        value = todo.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in by_output:
            found[value] = by_output[value]
            continue
        node = value.producer()
        taken = None if node is None else _varying(node)
        if node is None or taken is None:
            return ()
        readers.add(node)
        todo += taken
    units = consumer.matrix.columns
    fit = all(_is_own(p) and p.matrix.rows == units for p in found.values())
    alone = all(
        not value.is_graph_output() and all(use.node in readers for use in value.uses())
        for value in seen
    )
    return tuple(found.values()) if fit and alone else ()


def _varying(node: ir.Node) -> list[ir.Value] | None:
    """What a channelwise node reads beside single numbers; None of other nodes."""
    if node.domain != "" or node.op_type not in CHANNELWISE:
        return None
    values = [value for value in node.inputs if value is not None]
    constants = [constant(value) for value in values]
    if any(numbers is not None and numbers.size != 1 for numbers in constants):
        return None
    return [v for v, numbers in zip(values, constants, strict=True) if numbers is None]


def _is_own(linear: Linear) -> bool:
    """Whether nothing else reads a product's constants."""
    return all(
        value is None or len(value.uses()) == 1 for value in (linear.matrix.stored, linear.bias)
    )


def _take(value: ir.Value, order: NDArray[np.int32], axis: int) -> None:
    old, name = value.const_value, str(value.name)
    assert old is not None
    value.const_value = ir.LazyTensor(
        partial(_taken, old, order, axis, name),
        dtype=old.dtype,
        shape=ir.Shape(old.shape.numpy()),
        name=name,
    )


def _taken(
    old: ir.TensorProtocol, order: NDArray[np.int32], axis: int, name: str
) -> ir.TensorProtocol:
    return ir.tensor(np.take(old.numpy(), order, axis=axis), name=name)
