"""Questions about graphs that all passes ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard node of one of these types that computes a value, None if there is none."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and node.domain == "" else None


def only_user(value: ir.Value, *op_types: str) -> ir.Node | None:
    """The standard node of one of these types that alone reads a value, None if there is none."""
    users = value.uses()
    if len(users) != 1 or value.is_graph_output():
        return None
    node = next(iter(users)).node
    return node if node.op_type in op_types and node.domain == "" else None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The values of an initializer or Constant node; None if they are computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tensor.numpy() if tensor is not None else None


def is_constant(value: ir.Value | None, *numbers: int) -> bool:
    """Whether a value is constant and holds these integers and no others."""
    found = constant(value)
    return found is not None and found.dtype.kind == "i" and found.ravel().tolist() == [*numbers]


def integer(value: ir.Value | None) -> int | None:
    """The one integer that a constant holds, None if it is something else."""
    found = constant(value)
    if found is None or found.dtype.kind != "i" or found.size != 1:
        return None
    return int(found.ravel()[0])


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def axis(value: ir.Value | None, number: int) -> int | str | None:
    """The length of an axis, or its symbol; None where neither is known."""
    if value is None or value.shape is None or len(value.shape) <= abs(number):
        return None
    length = value.shape[number]
    return length if isinstance(length, int) else length.value


def may_agree(one: ir.Value | None, number: int, other: ir.Value | None, other_number: int) -> bool:
    """Whether an axis of a value can be as long as one of another: unless both are known to differ.

    Our operators check the shapes that they get, so a wrong guess is an error and no wrong number.
    """
    length, other_length = axis(one, number), axis(other, other_number)
    return length is None or other_length is None or length == other_length


def table(value: ir.Value | None) -> NDArray[np.float32] | None:
    """A constant float32 matrix; None if the value is something else."""
    found = constant(value)
    return found if found is not None and found.dtype == np.float32 and found.ndim == 2 else None
