"""How far the predictions of a changed model are from the original's, and from the text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ROWS = 64
"""Predictions handled at a time: what is computed of them is float64."""


@dataclass(frozen=True)
class Divergence:
    """What changing a model did to its predictions.

    Attributes:
        tokens: how many were looked at.
        kl: mean of KL(original || changed), in nats per token.
        agreement: part of the predictions whose likeliest token is the same.
        loss_before: mean cross-entropy of the text in the original, in nats per token; perplexity
            is its exponential.
        loss_after: the same in the changed model.
    """

    tokens: int
    kl: float
    agreement: float
    loss_before: float
    loss_after: float


@dataclass(frozen=True)
class Sums:
    """The same, summed over tokens."""

    tokens: int = 0
    kl: float = 0.0
    agreed: int = 0
    loss_before: float = 0.0
    loss_after: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.tokens + other.tokens,
            self.kl + other.kl,
            self.agreed + other.agreed,
            self.loss_before + other.loss_before,
            self.loss_after + other.loss_after,
        )

    def mean(self) -> Divergence:
        """Per token; there must be some."""
        return Divergence(
            tokens=self.tokens,
            kl=self.kl / self.tokens,
            agreement=self.agreed / self.tokens,
            loss_before=self.loss_before / self.tokens,
            loss_after=self.loss_after / self.tokens,
        )


def compare_logits(
    original: Array, changed: Array, labels: NDArray[np.int64], mask: NDArray[np.bool_]
) -> Sums:
    """Compare two models' logits ``[B, T, vocab]`` of the same tokens.

    Args:
        original: of the original model.
        changed: of the changed one.
        labels: ``[B, T]``, the tokens to predict.
        mask: ``[B, T]``, which of them count.
    """
    places = np.flatnonzero(mask)
    sums = Sums()
    for start in range(0, len(places), ROWS):
        rows = places[start : start + ROWS]
        p, q = _log_softmax(original, rows), _log_softmax(changed, rows)
        picked = np.arange(len(rows)), labels.reshape(-1)[rows]
        sums += Sums(
            tokens=len(rows),
            # Rounding can make a sum of nothing slightly negative.
            kl=max(float((np.exp(p) * (p - q)).sum()), 0.0),
            agreed=int((p.argmax(1) == q.argmax(1)).sum()),
            loss_before=-float(p[picked].sum()),
            loss_after=-float(q[picked].sum()),
        )
    return sums


def _log_softmax(logits: Array, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    scores = logits.reshape(-1, logits.shape[-1])[rows].astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores
