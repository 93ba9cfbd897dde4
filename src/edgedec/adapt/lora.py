"""Low-rank corrections as they are made at the beginning, and as they are stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgedec.adapt.twin import LowRank

if TYPE_CHECKING:
    from torch import Generator, Tensor
else:
    Tensor = Generator = Any


def fresh(
    sizes: Mapping[str, tuple[int, int]], rank: int, alpha: float, seed: int, device: str
) -> dict[str, LowRank]:
    """Corrections that correct nothing yet: A is Kaiming-uniform, B zero (arXiv 2106.09685).

    Args:
        sizes: name -> (inputs, outputs).
        rank: columns of B; no more than a product has inputs or outputs.
        alpha: the correction is scaled by alpha / rank.
        seed: of A.
        device: a torch device.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, (inputs, outputs) in sizes.items():
        bound = math.sqrt(6 / ((1 + 5) * inputs))  # kaiming_uniform_(a=sqrt(5)), as PEFT does
        a = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        b = torch.zeros(outputs, rank)
        a, b = (t.to(device).requires_grad_() for t in (a, b))
        made[name] = LowRank(a, b, alpha / rank)
    return made


def trainable(*groups: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """All matrices of corrections by name."""
    return {
        f"{name}.{leaf}": matrix
        for group in groups
        for name, low in group.items()
        for leaf, matrix in (("A", low.a), ("B", low.b))
    }


def total(tensors: Iterable[Tensor]) -> int:
    """Numbers in tensors."""
    return sum(int(tensor.numel()) for tensor in tensors)
