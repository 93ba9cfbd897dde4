"""CALM's classifier of hidden states: would full depth choose the same? (arXiv 2207.07061, 3.2).

One linear classifier for all exits reads the hidden state there. Its label is whether the head
would choose the same token there as after the last layer; both labels count the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedec.adapt.batches import Feed
from edgedec.adapt.objective import Setup, Trained, full_depth
from edgedec.adapt.objectives.exits import exits_of
from edgedec.adapt.twin import Source

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


class Confidence:
    """``confidence = sigmoid(w . h + b)``, ``h`` being divided by its size.

    Hidden states of different models differ a thousandfold in size; the division, a constant that
    is found with the first batch, makes one learning rate right for all. It goes into ``w``.
    """

    def __init__(self, setup: Setup) -> None:
        import torch

        self._twin, self._policy = setup.twin, setup.policy
        spec, device = setup.twin.spec, setup.twin.device
        self.exits = exits_of(setup.policy, spec.decoder.layers)
        self._weight = torch.zeros(1, spec.d_model, device=device, requires_grad=True)
        self._bias = torch.zeros(1, device=device, requires_grad=True)
        # trained by nobody, but kept with the rest
        self._size = torch.zeros(1, spec.d_model, device=device)

    def trainable(self) -> dict[str, Tensor]:
        """See `Objective`."""
        return {"meta.weight": self._weight, "meta.bias": self._bias, "size": self._size}

    def phases(self) -> tuple[float, ...]:
        """See `Objective`."""
        return (0.0, 1.0)

    def loss(self, feed: Feed, source: Source | None, done: float) -> Tensor:  # noqa: ARG002
        """See `Objective`: binary cross-entropy, mean over exits."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            states = full_depth(self._twin, feed, source)
            chosen = self._twin.head(states[-1][feed.counted]).argmax(-1)
        terms = []
        for layer in self.exits:
            hidden = states[layer][feed.counted]
            with torch.no_grad():
                if not self._size.any():
                    self._size += (hidden * hidden).mean(0).sqrt().clamp(min=1e-6)
                same = self._twin.head(hidden).argmax(-1) == chosen
                share = same.float().mean().clamp(1e-3, 1 - 1e-3)
                balance = torch.where(same, 0.5 / share, 0.5 / (1 - share))
            score = self._score(hidden)
            terms.append(functional.binary_cross_entropy_with_logits(score, same.float(), balance))
        return torch.stack(terms).mean()

    def predictions(self, feed: Feed, source: Source | None) -> list[Tensor]:
        """See `Objective`: of the first exit that is certain enough.

        Hidden states are full depth's; while generating, those of earlier tokens that left are
        copied up instead.
        """
        import torch

        states = full_depth(self._twin, feed, source)
        threshold = float(getattr(self._policy, "threshold", 0.5))
        logits = self._twin.head(states[-1])
        for layer in reversed(self.exits):
            certain = torch.sigmoid(self._score(states[layer])) >= threshold
            logits = torch.where(certain[..., None], self._twin.head(states[layer]), logits)
        return [logits]

    def trained(self) -> Trained:
        """See `Objective`."""
        weight = self._weight / self._size.clamp(min=1e-6)
        return Trained(tensors={"meta.weight": weight, "meta.bias": self._bias})

    def _score(self, hidden: Tensor) -> Tensor:
        size = self._size.clamp(min=1e-6)
        return ((hidden / size) @ self._weight.T + self._bias)[..., 0]
