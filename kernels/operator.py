"""Operator schemas as data: what the function bodies, the library and the lowering agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DOMAIN = "edgedec"
VERSION = 1
OPSET = 24
"""The standard operators that the function bodies are made of."""


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        name: the formal name, also in the function body.
        dtype: NumPy's name of its type.
        shape: one word per axis; ``...`` stands for any leading axes.
        optional: may be left out (an empty name in the node).
        constant: must be an initializer.
    """

    name: str
    dtype: str
    shape: tuple[str, ...]
    optional: bool = False
    constant: bool = False


@dataclass(frozen=True)
class Attribute:
    """An attribute; every node sets every attribute, because functions may not have defaults."""

    name: str
    kind: Literal["int", "ints", "float", "string"]


@dataclass(frozen=True)
class Operator:
    """An operator of our domain."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[Attribute, ...]
