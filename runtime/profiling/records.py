"""ONNX Runtime's records of a session: which operators ran in which run, and for how long."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODE = "_kernel_time"
"""What ONNX Runtime appends to the name of a node."""
RUN = "model_run"
"""How it calls a run of the graph, whose record follows those of its nodes."""


@dataclass(frozen=True)
class Node:
    """One operator of one run; times by the clock of the records, in microseconds.

    Attributes:
        name: of the node in the graph; made up by ONNX Runtime where it has none.
        operator: its type, such as ``MatMul``.
        shapes: of its inputs: ``1x8x512 512x512``.
        begin_us: when it began,
        us: and how long it took.
    """

    name: str
    operator: str
    shapes: str
    begin_us: int
    us: int


@dataclass(frozen=True)
class Run:
    """One run of a graph, by the same clock."""

    begin_us: int
    us: int
    nodes: tuple[Node, ...]


def read_runs(path: Path) -> tuple[Run, ...]:
    """All runs of a session, in order.

    Args:
        path: a file of `Session.end_records`.
    """
    runs: list[Run] = []
    nodes: list[Node] = []
    for record in json.loads(path.read_text(encoding="utf-8")):
        name, begin, took = record["name"], record.get("ts", 0), record.get("dur", 0)
        if name == RUN:
            runs.append(Run(begin, took, tuple(nodes)))
            nodes = []
        elif record["cat"] == "Node" and name.endswith(NODE):
            args = record["args"]
            nodes.append(
                Node(
                    name=name.removesuffix(NODE),
                    operator=args["op_name"],
                    shapes=_shapes(args.get("input_type_shape", [])),
                    begin_us=begin,
                    us=took,
                )
            )
    return tuple(runs)


def _shapes(inputs: list[dict[str, list[Any]]]) -> str:
    shapes = (shape for tensor in inputs for shape in tensor.values())
    return " ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
