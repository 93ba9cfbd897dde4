"""Read from an ``.onnx`` file what must be checked before a runtime opens it.

A bundle may come from a stranger: its graphs name files, offsets and lengths, and may hold what
makes a runtime loop, grow or crash. This walks the whole file without the ``onnx`` package, finds
every reference to another file wherever ONNX allows a tensor, and refuses what no bundle needs.
Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edgedec.runtime import foreign
from edgedec.runtime.foreign import Foreign, check_weights
from edgedec.runtime.onnx_node import DOMAINS, check_node, read_texts
from edgedec.runtime.operators import ATTRIBUTES, DOMAIN, VERSION
from edgedec.runtime.protobuf import fields, signed

# Message -> field number -> message inside; everything else is skipped.
NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
REFUSED: dict[tuple[str, int], str] = {
    ("model", 20): "training information",
    ("attribute", 6): "a graph inside a node (If, Loop, Scan)",
    ("attribute", 11): "graphs inside a node",
    ("function", 11): "a function with default attributes",
}
EXTERNAL = {
    "location": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    "offset": re.compile(r"[0-9]{1,18}"),
    "length": re.compile(r"[0-9]{1,18}"),
    "checksum": re.compile(r"[0-9A-Fa-f]*"),
}
"""What may say where a tensor is stored: the name of a file beside the graph, and numbers."""


@dataclass(frozen=True)
class ExternalData:
    """A tensor stored outside of the graph's file."""

    tensor: str
    location: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class OnnxFile:
    """Operator sets by domain, and every reference to another file.

    ``external`` are tensors, ``compiled`` the names of files with compiled graphs.
    """

    opsets: dict[str, int]
    external: tuple[ExternalData, ...]
    compiled: tuple[str, ...] = ()


@dataclass
class _Found:
    """What a walk over a file has come across."""

    opsets: dict[str, int]
    external: list[ExternalData] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    foreign: list[Foreign] = field(default_factory=list)


def read_onnx(data: bytes) -> OnnxFile:
    """Walk a serialized ModelProto.

    Raises:
        ValueError: not a well-formed message, a malformed reference, or something that bundles must
            not contain; the message says what.
    """
    found = _Found(operator_sets(data))
    if found.opsets.get(DOMAIN, 0) > VERSION:
        raise ValueError(f"it uses version {found.opsets[DOMAIN]} of edgedec's operators")
    if found.opsets.get(foreign.DOMAIN, 0) > foreign.VERSION:
        raise ValueError(
            f"it uses version {found.opsets[foreign.DOMAIN]} of operators of {foreign.DOMAIN!r}"
        )
    _walk(memoryview(data), "model", found, in_function=False)
    compiled = [node.file for node in found.foreign if node.file is not None]
    return OnnxFile(found.opsets, tuple(found.external), tuple(dict.fromkeys(compiled)))


def operator_sets(data: bytes) -> dict[str, int]:
    """The operator sets that a serialized ModelProto names, by domain; only these are read.

    Raises:
        ValueError: as `read_onnx`.
    """
    return _opsets(memoryview(data), 8)


def _opsets(data: memoryview, at: int) -> dict[str, int]:
    """The operator sets in field ``at`` of a message."""
    opsets: dict[str, int] = {}
    for number, _, value in fields(data):
        if number == at and isinstance(value, memoryview):
            domain, version = _opset(value)
            if domain in opsets:
                raise ValueError(f"operator set {domain!r} is named twice")
            opsets[domain] = version
    return opsets


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, _, value in fields(data):
        if number == 1 and isinstance(value, memoryview):
            domain = str(value, "utf-8")
        elif number == 2 and isinstance(value, int):
            version = signed(value)
    if domain not in DOMAINS:
        raise ValueError(f"operators of {domain!r} are not among edgedec's")
    return domain, version


def _walk(data: memoryview, message: str, found: _Found, *, in_function: bool) -> None:
    """Collect the references below a message; `NESTED` has no cycles, so its depth is bounded."""
    if message == "tensor":
        reference = _reference(data)
        if reference is not None:
            found.external.append(reference)
        return
    if message == "node":
        node = check_node(data, in_function=in_function)
        if node is not None:
            found.foreign.append(node)
    if message == "function":
        _check_function(data, found)
        in_function = True
    inside = NESTED[message]
    for number, _, value in fields(data):
        if (message, number) in REFUSED:
            raise ValueError(f"it contains {REFUSED[message, number]}")
        if number in inside and isinstance(value, memoryview):
            _walk(value, inside[number], found, in_function=in_function)
    if message == "graph":
        check_weights(found.foreign, data)


def _check_function(data: memoryview, found: _Found) -> None:
    """Refuse functions that are no body of an operator of ours."""
    name, domain, overload = read_texts(data, 1, 10, 13)
    attributes = {
        str(value, "utf-8", "replace")
        for number, _, value in fields(data)
        if number == 6 and isinstance(value, memoryview)
    }
    rules = ATTRIBUTES.get(name)
    if domain != DOMAIN or overload or rules is None or attributes != rules.keys():
        raise ValueError(f"the function {name[:40]!r} is no operator of edgedec's")
    if name in found.functions:
        raise ValueError(f"the function {name!r} is there twice")
    found.functions.add(name)
    if not _opsets(data, 9).items() <= found.opsets.items():
        raise ValueError(f"the function {name!r} uses other operator sets than its file")


def _reference(data: memoryview) -> ExternalData | None:
    name, external, entries = "", False, dict[str, str]()
    for number, _, value in fields(data):
        if number == 8 and isinstance(value, memoryview):
            name = str(value, "utf-8", "replace")
        elif number == 14:
            external = value != 0
        elif number == 13 and isinstance(value, memoryview):
            pair = {n: str(v, "utf-8") for n, _, v in fields(value) if isinstance(v, memoryview)}
            key = pair.get(1, "")
            if key in entries:
                raise ValueError(f"tensor {name!r} has two values for {key!r}")
            entries[key] = pair.get(2, "")
    if not external and not entries:
        return None
    for key, text in entries.items():
        # Others exist, and make a runtime read other parts of files.
        pattern = EXTERNAL.get(key)
        if pattern is None or not pattern.fullmatch(text):
            raise ValueError(f"tensor {name!r} is stored with {key} {text[:80]!r}")
    length = entries.get("length")
    return ExternalData(
        tensor=name,
        location=entries.get("location", ""),
        offset=int(entries.get("offset", "0")),
        length=None if length is None else int(length),
    )
