"""Read from an ``.onnx`` file what must be checked before a runtime opens it.

A bundle may come from a stranger: its graphs name files, offsets and lengths. This finds every such
reference, wherever ONNX allows a tensor, and the operator sets, without the ``onnx`` package.
Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgedec.runtime.protobuf import fields

# Message -> field number -> message inside; everything else is skipped.
NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
MAX_DEPTH = 32


@dataclass(frozen=True)
class ExternalData:
    """A tensor stored outside of the graph's file."""

    tensor: str
    location: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class OnnxFile:
    """Operator sets by domain, and every reference to another file."""

    opsets: dict[str, int]
    external: tuple[ExternalData, ...]


def read_onnx(data: bytes) -> OnnxFile:
    """Walk a serialized ModelProto.

    Raises:
        ValueError: not a well-formed message, nested too deep, or a malformed reference.
    """
    opsets: dict[str, int] = {}
    for number, _, value in fields(data):
        if number == 8 and isinstance(value, memoryview):
            domain, version = "", 0
            for key, _, inner in fields(value):
                if key == 1 and isinstance(inner, memoryview):
                    domain = str(inner, "utf-8")
                elif key == 2 and isinstance(inner, int):
                    version = inner
            opsets[domain] = version
    return OnnxFile(opsets, tuple(_external(memoryview(data), "model", 0)))


def _external(data: memoryview, message: str, depth: int) -> Iterator[ExternalData]:
    if depth > MAX_DEPTH:
        raise ValueError("graphs are nested too deep")
    if message == "tensor":
        reference = _reference(data)
        if reference is not None:
            yield reference
        return
    inside = NESTED[message]
    for number, _, value in fields(data):
        if number in inside and isinstance(value, memoryview):
            yield from _external(value, inside[number], depth + 1)


def _reference(data: memoryview) -> ExternalData | None:
    name, external, entries = "", False, {}
    for number, _, value in fields(data):
        if number == 8 and isinstance(value, memoryview):
            name = str(value, "utf-8", "replace")
        elif number == 14:
            external = value == 1
        elif number == 13 and isinstance(value, memoryview):
            pair = {n: str(v, "utf-8") for n, _, v in fields(value) if isinstance(v, memoryview)}
            entries[pair.get(1, "")] = pair.get(2, "")
    if not external and not entries:
        return None
    length = entries.get("length")
    reference = ExternalData(
        tensor=name,
        location=entries.get("location", ""),
        offset=int(entries.get("offset", "0")),
        length=None if length is None else int(length),
    )
    if reference.offset < 0 or (reference.length or 0) < 0:
        raise ValueError(f"tensor {name!r} has a negative offset or length")
    return reference
