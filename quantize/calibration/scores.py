"""How far the predictions of a changed model are from the original's, and from the text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ROWS = 64
"""Predictions handled at a time: what is computed of them is float64."""
LEAST = -700.0
"""Logarithm of the least probability that counts: tokens that a model masks have infinite ones,
and one that only the changed model masks would hide all else. Its exponential is finite."""


@dataclass(frozen=True)
class Divergence:
    """What changing a model did to its predictions.

    Attributes:
        tokens: how many were looked at.
        kl: mean of KL(original || changed), in nats per token. Probabilities are at least
            ``exp(LEAST)`` here and in losses, so all are finite where logits are masked.
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


@dataclass(frozen=True)
class Deviation:
    """How far an array is from the original one.

    Attributes:
        changed: of numbers with a fraction, the sum of squared differences; of others, how many
            differ.
        total: the sum of the original's squares; of others, how many there are.
        power: 2 for squares, 1 for counts.
    """

    changed: float = 0.0
    total: float = 0.0
    power: int = 1

    def __add__(self, other: Deviation) -> Deviation:
        return Deviation(
            self.changed + other.changed, self.total + other.total, max(self.power, other.power)
        )

    @property
    def relative(self) -> float:
        """Root mean square by root mean square, or the part that differs."""
        if self.total == 0:
            return float(self.changed > 0)
        return math.sqrt(self.changed / self.total) if self.power > 1 else self.changed / self.total


def compare_arrays(original: NDArray[Any], changed: NDArray[Any]) -> Deviation:
    """Compare an output of two models; numbers that are not finite in the original don't count.

    Where a model makes arrays of another shape, all of it has changed.
    """
    if original.dtype.kind != "f":
        different = changed.shape != original.shape
        count = original.size if different else int((original != changed).sum())
        return Deviation(count, original.size)
    finite = np.isfinite(original)
    values = original[finite].astype(np.float64)
    total = float((values**2).sum())
    if changed.shape != original.shape:
        return Deviation(total, total, 2)
    found = np.nan_to_num(changed[finite].astype(np.float64))
    return Deviation(float(((found - values) ** 2).sum()), total, 2)


def compare_logits(
    original: Array, changed: Array, labels: NDArray[np.int64], mask: NDArray[np.bool_]
) -> Sums:
    """Compare two models' logits ``[B, T, vocab]`` of the same tokens.

    Args:
        original: of the original model; those of masked tokens may be minus infinity.
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
    # finite, or rows without a token that is allowed would be NaN
    np.maximum(scores, np.finfo(np.float32).min, out=scores)
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return np.maximum(scores, LEAST)
