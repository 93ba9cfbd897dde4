"""Muon for the weight matrices, AdamW for the embedding, the norms and the position bias.

Muon (Jordan et al. 2024) is momentum SGD whose update is replaced by the nearest semi-orthogonal
matrix, so that all directions of a matrix learn at the same rate. The update is scaled to AdamW's
usual size (Liu et al. 2025), and both share one learning rate.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# Quintic a*s + b*s^3 + c*s^5 that pushes singular values in (0, 1] towards 1 (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 4
# Root mean square of a typical AdamW update at learning rate 1 (Liu et al. 2025).
ADAMW_UPDATE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon over stacks of matrices: every parameter is [count, rows, columns]."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter; all matrices of one shape are orthogonalised together."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape[1:]].append(parameter)
            for parameters in by_shape.values():
                momenta = [self._momentum(p, group["momentum"]) for p in parameters]
                updates = orthogonalize(torch.cat(momenta))
                scale = group["lr"] * ADAMW_UPDATE * math.sqrt(max(updates.shape[1:]))
                shares = torch.split(updates, [p.shape[0] for p in parameters])
                for parameter, update in zip(parameters, shares, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-scale)

    def _momentum(self, parameter: nn.Parameter, decay: float) -> Tensor:
        """Nesterov momentum of the gradient."""
        if parameter.grad is None:
            raise ValueError("Muon needs a gradient for every parameter")
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum"].lerp_(parameter.grad, 1 - decay)
        return parameter.grad.lerp(average, decay)


def orthogonalize(matrices: Tensor) -> Tensor:
    """[N, rows, columns] -> about U V^T of each matrix's singular value decomposition U S V^T."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def build_optimizers(model: nn.Module, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the stacked matrices, AdamW without weight decay for everything else."""
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim == 3]
    others = [p for p in parameters if p.ndim != 3]
    return [
        Muon(matrices, lr=0.0, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def learning_rate_factor(step: int, progress: float, warmup: int) -> float:
    """Linear warm-up over ``warmup`` steps, times a cosine from 1 to 0 over ``progress``."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
