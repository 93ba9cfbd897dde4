"""Data parallelism over processes, one thread each, started by ``torchrun``.

On a CPU this beats one process with as many threads: the processes meet once per step instead of
several times per layer, which matters most where other programs want the same cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn


class Processes:
    """This process among its peers; alone when not started by ``torchrun``."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1:
            distributed.init_process_group("gloo")

    @property
    def first(self) -> bool:
        """Whether this process is the one that reports and writes files."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Every ``count``-th row of a batch [B, ...], from this process's on."""
        return batch[self.rank :: self.count]

    def agree(self, value: float) -> float:
        """The first process's value."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(tensor, 0)
        return tensor.item()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in one exchange."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        shares = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, share in zip(gradients, shares, strict=True):
            gradient.copy_(share.view_as(gradient))
