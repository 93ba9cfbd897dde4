"""What a node of ONNX Runtime's own operators may say, of which bundles for NPUs contain two.

``MatMulNBits`` multiplies with weights in blocks of 2, 4 or 8 bits; its kernels trust the sizes
that attributes name, so these are compared with the weights here. ``EPContext`` stands for a graph
that a device's compiler has swallowed, and names the file of what came out.
Source: ContribOperators.md of ONNX Runtime 1.31. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgedec.runtime.operators import LARGEST, Rule, Value, between, one_of
from edgedec.runtime.protobuf import fields, signed, varints

DOMAIN = "com.microsoft"
VERSION = 1
STANDARD = ("", "ai.onnx")
"""The standard operators, under both of their names."""
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""The name of a file beside the graph."""
UINT8, FLOAT, FLOAT16 = 2, 1, 10
"""Types of tensors."""


def _is_file(value: Value | None) -> bool:
    return isinstance(value, str) and FILE.fullmatch(value) is not None


def _is_text(value: Value | None) -> bool:
    return isinstance(value, str)


REQUIRED: dict[str, dict[str, Rule]] = {
    "MatMulNBits": {
        "K": between(1, LARGEST),
        "N": between(1, LARGEST),
        "bits": one_of(2, 4, 8),
        "block_size": one_of(16, 32, 64, 128, 256),
    },
    # 1 would be the compiled graph itself, in the place of a file's name
    "EPContext": {"ep_cache_context": _is_file, "embed_mode": one_of(0)},
}
"""Operator -> attribute -> what it may be; all of them must be given."""
OPTIONAL: dict[str, dict[str, Rule]] = {
    "MatMulNBits": {"accuracy_level": between(0, 4)},
    "EPContext": {
        "main_context": one_of(0, 1),
        "is_multi_soc_ep_context": one_of(0, 1),
        "max_size": between(0, LARGEST),
        "ep_sdk_version": _is_text,
        "partition_name": _is_text,
        "source": one_of("QNN", "QNNExecutionProvider"),
    },
}


@dataclass(frozen=True)
class Foreign:
    """A node of ONNX Runtime's own.

    Attributes:
        op_type: which operator.
        attributes: checked.
        inputs: names.
    """

    op_type: str
    attributes: Mapping[str, Value | None]
    inputs: tuple[str, ...]

    @property
    def file(self) -> str | None:
        """The file that an ``EPContext`` names; None of others."""
        return str(self.attributes["ep_cache_context"]) if self.op_type == "EPContext" else None


def check_foreign(
    op_type: str, attributes: Mapping[str, Value | None], inputs: Sequence[str]
) -> Foreign:
    """Refuse other operators of ONNX Runtime's, and attributes that are unknown or out of range.

    Raises:
        ValueError: with the operator and what is wrong with it.
    """
    required = REQUIRED.get(op_type)
    if required is None:
        raise ValueError(f"operators {op_type[:40]!r} of {DOMAIN!r} are not among edgedec's")
    rules = required | OPTIONAL[op_type]
    for name in required.keys() - attributes.keys():
        raise ValueError(f"{op_type} lacks {name!r}")
    for name, value in attributes.items():
        if name not in rules:
            raise ValueError(f"{op_type} has an unknown attribute {name[:40]!r}")
        if not rules[name](value):
            raise ValueError(f"{op_type} has {name} = {str(value)[:40]}")
    return Foreign(op_type, attributes, tuple(inputs))


def check_weights(nodes: Sequence[Foreign], graph: memoryview) -> None:
    """Compare the weights of products in blocks with the sizes that their nodes name.

    Args:
        nodes: of a graph.
        graph: its message.

    Raises:
        ValueError: with the weight at fault.
    """
    products = [node for node in nodes if node.op_type == "MatMulNBits"]
    if not products:
        return
    tensors: dict[str, tuple[int, tuple[int, ...]]] = {}
    for name, kind, shape in _tensors(graph):
        if name in tensors:
            raise ValueError(f"the tensor {name[:40]!r} is there twice")
        tensors[name] = kind, shape
    casts = dict(_casts(graph))
    for node in products:
        # Neither zero points nor an order of rows nor a bias: nobody writes them.
        if len(node.inputs) != 3:
            raise ValueError(f"MatMulNBits has {len(node.inputs)} inputs")
        K, N, bits, block = (_number(node, name) for name in ("K", "N", "bits", "block_size"))
        blocks = -(-K // block)
        _, codes, scales = node.inputs
        if tensors.get(codes) != (UINT8, (N, blocks, block * bits // 8)):
            raise ValueError(f"{codes[:40]!r} is not a matrix of {N} x {K} weights of {bits} bits")
        kind, shape = tensors.get(casts.get(scales, scales), (0, ()))
        if kind not in {FLOAT, FLOAT16} or math.prod(shape) != N * blocks:
            raise ValueError(f"{scales[:40]!r} are not {N} x {blocks} scales")


def _number(node: Foreign, name: str) -> int:
    value = node.attributes[name]
    assert isinstance(value, int)
    return value


def _casts(graph: memoryview) -> Iterator[tuple[str, str]]:
    """Output and input of every ``Cast``: scales may be stored as halves."""
    for number, _, node in fields(graph):
        if number != 1 or not isinstance(node, memoryview):
            continue
        texts: dict[int, str] = {}
        for inner, _, item in fields(node):
            if inner in {1, 2, 4, 7} and isinstance(item, memoryview):
                texts[inner] = str(item, "utf-8", "replace")
        if texts.get(4) == "Cast" and texts.get(7, "") in STANDARD:
            yield texts.get(2, ""), texts.get(1, "")


def _tensors(graph: memoryview) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Name, type and shape of every tensor of a graph."""
    for number, _, value in fields(graph):
        if number != 5 or not isinstance(value, memoryview):
            continue
        name, kind, shape = "", 0, list[int]()
        for inner, _, item in fields(value):
            if inner == 1:  # one by one, or packed
                shape += map(signed, [item] if isinstance(item, int) else varints(item))
            elif inner == 2 and isinstance(item, int):
                kind = item
            elif inner == 8 and isinstance(item, memoryview):
                name = str(item, "utf-8", "replace")
        yield name, kind, tuple(shape)
