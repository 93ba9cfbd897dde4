"""Matrices of a kind: those with the same place in different layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from edgedec.quantize.reporting.report import MatrixReport

LAYER = re.compile(r"(^|[./])(\d+)(?=[./])")
"""The first whole part of a name that is a number."""
SUFFIX = ".weight"
ANY = "*"

Item = TypeVar("Item")


def kind_of(name: str) -> str:
    """The name without its layer: ``decoder.*.mlp.up`` of ``decoder.3.mlp.up.weight``."""
    return LAYER.sub(rf"\1{ANY}", name, count=1).removesuffix(SUFFIX)


def layer_of(name: str) -> int | None:
    """The layer in a name, None where there is none."""
    match = LAYER.search(name)
    return None if match is None else int(match[2])


def by_kind(matrices: Iterable[MatrixReport]) -> dict[str, list[MatrixReport]]:
    """Kinds in the order of their first matrices."""
    kinds: dict[str, list[MatrixReport]] = {}
    for matrix in matrices:
        kinds.setdefault(kind_of(matrix.name), []).append(matrix)
    return kinds


def bits_used(matrices: Iterable[MatrixReport]) -> str:
    """Bits of some matrices for people: ``4``, or ``2, 3 or 8``."""
    widths = [str(bits) for bits in sorted({matrix.bits for matrix in matrices})]
    return " or ".join([", ".join(widths[:-1]), widths[-1]]) if len(widths) > 1 else widths[0]


def layered(kinds: Mapping[str, Sequence[Item]]) -> dict[str, Sequence[Item]]:
    """Kinds that more than one layer has."""
    return {kind: items for kind, items in kinds.items() if len(items) > 1 and ANY in kind}
