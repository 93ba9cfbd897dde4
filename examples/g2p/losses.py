"""The early-exit loss: every decoder layer learns to speak through the shared norm and head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from g2p.model import PAD, G2PTransformer


def exit_weights(layers: int, weight: float) -> list[float]:
    """Loss weights of the exits, summing to 1: ``weight`` * depth for the early ones, 1 last.

    >>> exit_weights(2, 1.0)
    [0.3333333333333333, 0.6666666666666666]
    """
    raw = [weight * (i + 1) / layers for i in range(layers - 1)] + [1.0]
    return [w / sum(raw) for w in raw]


def exit_loss(
    model: G2PTransformer, source: Tensor, target: Tensor, weights: list[float], smoothing: float
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of all exits with label smoothing, and the last exit's without.

    Args:
        model: the model, which is called with teacher forcing.
        source: letters [B, S].
        target: phonemes [B, T], each row ending with ``</s>``.
        weights: one per exit.
        smoothing: label smoothing.
    """
    previous = F.pad(target[:, :-1], (1, 0), value=PAD)
    exits = [logits.flatten(0, 1) for logits in model(source, previous)]
    labels = target.flatten()
    losses = [
        F.cross_entropy(logits, labels, ignore_index=PAD, label_smoothing=smoothing)
        for logits in exits
    ]
    total = torch.stack(losses) @ torch.tensor(weights)
    return total, F.cross_entropy(exits[-1].detach(), labels, ignore_index=PAD)
