"""Weight matrices as lowered graphs hold them."""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.kernels.packing import Packed
from edgedec.quantize.matrices import Matrix


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A matrix as a lowered graph holds it.

    Attributes:
        name: the node's module path, such as ``decoder.3.self_attn.qkv``.
        packed: codes and tables.
        parts: the matrices that it was made of, from its first row to its last.
    """

    name: str
    packed: Packed
    parts: tuple[Matrix, ...]
