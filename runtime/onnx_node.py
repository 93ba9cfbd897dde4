"""Check one node of an ``.onnx`` file: its operator, and attributes that end a process.

Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from edgedec.runtime import foreign
from edgedec.runtime.foreign import STANDARD, Foreign, check_foreign
from edgedec.runtime.operators import DOMAIN, Value, check_attributes
from edgedec.runtime.protobuf import fields, signed, varints

DOMAINS = (*STANDARD, DOMAIN, foreign.DOMAIN)
"""Operator sets of bundles: the standard one, our own, and ONNX Runtime's, of which bundles for
NPUs use two operators."""
LOWEST = {
    "Attention": {"q_num_heads": 1, "kv_num_heads": 1},
    "GatherND": {"batch_dims": 0},
    "DequantizeLinear": {"block_size": 0},
    "QuantizeLinear": {"block_size": 0},
}
"""Operator -> attribute -> smallest value; ONNX Runtime 1.31 dies of smaller ones, and of 2**31."""


@dataclass(frozen=True)
class _Attribute:
    """An attribute: its value if it is a number, a text or integers, or whose value it takes.

    ``integer`` is what stands in the place for one, whatever the attribute says that it is.
    """

    name: str
    value: Value | None
    integer: int
    reference: str


def check_node(data: memoryview, *, in_function: bool) -> Foreign | None:
    """Refuse what makes ONNX Runtime 1.31 crash, or expand without end.

    Returns:
        What is more to be checked: a node of ONNX Runtime's own; None of others.

    Raises:
        ValueError: with the operator or attribute at fault.
    """
    op_type, domain, overload = read_texts(data, 4, 7, 8)
    if domain not in DOMAINS:
        raise ValueError(f"operators of {domain!r} are not among edgedec's")
    if overload:
        raise ValueError(f"{op_type[:40]} names an overload")
    if domain == DOMAIN and in_function:
        raise ValueError("a function calls a function")
    limits = LOWEST.get(op_type, {})
    if domain in STANDARD and not limits:  # as most are, and a graph has thousands
        return None
    attributes = _attributes(data, in_function=in_function)
    if domain == foreign.DOMAIN:
        if in_function:
            raise ValueError(f"a function calls {op_type[:40]!r} of {domain!r}")
        values = {name: item.value for name, item in attributes.items()}
        return check_foreign(op_type, values, _inputs(data))
    if domain == DOMAIN:
        check_attributes(op_type, {name: item.value for name, item in attributes.items()})
    _check_limits(op_type, attributes, limits)
    return None


def _check_limits(
    op_type: str, attributes: Mapping[str, _Attribute], limits: Mapping[str, int]
) -> None:
    for name, lowest in limits.items():
        item = attributes.get(name)
        # The caller's attribute of the same name is in range where its node is.
        if item is None or item.reference == name:
            continue
        if item.reference or not lowest <= item.integer < 1 << 31:
            raise ValueError(f"{op_type} has {name} = {item.reference or item.integer}")


def _inputs(data: memoryview) -> list[str]:
    """The names of a node's inputs."""
    return [
        str(value, "utf-8", "replace")
        for number, _, value in fields(data)
        if number == 1 and isinstance(value, memoryview)
    ]


def read_texts(data: memoryview, *numbers: int) -> tuple[str, ...]:
    """The texts in some fields of a message, empty where there are none."""
    found = dict.fromkeys(numbers, "")
    for number, _, value in fields(data):
        if number in found and isinstance(value, memoryview):
            found[number] = str(value, "utf-8", "replace")
    return tuple(found.values())


def _attributes(data: memoryview, *, in_function: bool) -> dict[str, _Attribute]:
    attributes: dict[str, _Attribute] = {}
    for number, _, value in fields(data):
        if number != 5 or not isinstance(value, memoryview):
            continue
        item = _attribute(value)
        if item.name in attributes:
            raise ValueError(f"the attribute {item.name[:40]!r} is given twice")
        if item.reference and not in_function:
            raise ValueError(f"the attribute {item.name[:40]!r} has no value")
        attributes[item.name] = item
    return attributes


def _attribute(data: memoryview) -> _Attribute:
    texts, numbers = {1: "", 4: "", 21: ""}, {3: 0, 20: 0}
    decimal = 0.0
    integers: list[int] = []
    for number, _, value in fields(data):
        if number in texts and isinstance(value, memoryview):
            texts[number] = str(value, "utf-8", "replace")
        elif number in numbers and isinstance(value, int):
            numbers[number] = signed(value)
        elif number == 2 and isinstance(value, memoryview) and len(value) == 4:
            (decimal,) = struct.unpack("<f", value)
        elif number == 8:  # one by one, or packed
            many = [value] if isinstance(value, int) else varints(value)
            integers += [signed(item) for item in many]
    name, text, reference = texts.values()
    integer, kind = numbers.values()
    known: dict[int, Value] = {1: decimal, 2: integer, 3: text, 7: tuple(integers)}
    return _Attribute(name, known.get(kind), integer, reference)
