"""The small ``.onnx`` file that stands for a context binary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedec.runtime.protobuf import fields

DOMAIN = "com.microsoft"
OPERATOR = "EPContext"
SHARED = "edgedec.shared"
"""Key of the metadata of contexts whose binary holds other graphs too."""


@dataclass(frozen=True)
class ContextFile:
    """What a compiled graph's file says of its binary.

    Attributes:
        several: it is for several SoCs.
        shared: it holds other graphs too, with the weights that they have in common.
    """

    several: bool
    shared: bool


def read_context(graph: Path) -> ContextFile | None:
    """What a graph's file says of its context binary; None for a graph that is not compiled.

    Raises:
        ValueError: the file is damaged.
    """
    several = shared = found = False
    for number, _, value in fields(graph.read_bytes()):
        if number == 7 and isinstance(value, memoryview):  # the graph
            for inner, _, node in fields(value):
                if inner == 1 and isinstance(node, memoryview) and _text(node, 4) == OPERATOR:
                    found = True
                    several = several or _number(node, "is_multi_soc_ep_context") == 1
        elif number == 14 and isinstance(value, memoryview):  # metadata
            shared = shared or _text(value, 1) == SHARED
    return ContextFile(several, shared) if found else None


def write_plainly(graph: Path, *, shared: bool) -> None:
    """Write the provider's file again, without the operator sets that it has no use for.

    What its metadata says of SoCs and versions stays: runtimes on devices read that.

    Args:
        graph: the file.
        shared: whether its binary holds other graphs too.
    """
    import onnx

    model = onnx.load(graph, load_external_data=False)
    for entry in [entry for entry in model.opset_import if entry.domain not in {"", DOMAIN}]:
        model.opset_import.remove(entry)
    if shared:
        model.metadata_props.add(key=SHARED, value="1")
    onnx.save(model, graph)


def _text(message: memoryview, at: int) -> str:
    for number, _, value in fields(message):
        if number == at and isinstance(value, memoryview):
            return str(value, "utf-8", "replace")
    return ""


def _number(node: memoryview, name: str) -> Any:
    """An attribute of a node that is a number; None where it has none of that name."""
    for number, _, value in fields(node):
        if number == 5 and isinstance(value, memoryview) and _text(value, 1) == name:
            return next((n for at, _, n in fields(value) if at == 3), None)
    return None
