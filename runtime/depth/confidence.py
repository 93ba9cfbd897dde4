"""How sure a model is of its next token, from its logits or hidden states, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


def softmax_max(logits: Logits) -> NDArray[np.float32]:
    """The highest probability of each row of logits ``[rows, vocab]``."""
    highest: NDArray[np.float32] = 1 / _exponentials(logits).sum(axis=1)
    return highest


def softmax_diff(logits: Logits) -> NDArray[np.float32]:
    """The difference of the two highest probabilities of each row of logits ``[rows, vocab]``."""
    exponentials = _exponentials(logits)
    total = exponentials.sum(axis=1)
    exponentials[np.arange(len(logits)), logits.argmax(axis=1)] = 0
    difference: NDArray[np.float32] = (1 - exponentials.max(axis=1)) / total
    return difference


def probability(logits: Logits, token: int) -> float:
    """The probability of a token by logits ``[vocab]``."""
    with np.errstate(over="ignore"):  # a token that is far from likely: 1 / inf
        return float(1 / np.exp(logits - logits[token]).sum())


def similarity(
    before: NDArray[np.float32] | None, after: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The cosine of the angle between hidden states ``[rows, width]`` before and after a stage.

    Before the first stage there is none: then -1, so that nobody is sure there (arXiv 2207.07061).
    """
    if before is None:
        return np.full(len(after), -1, np.float32)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    products = np.einsum("ij,ij->i", before, after)
    cosines: NDArray[np.float32] = products / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines


def _exponentials(logits: Logits) -> NDArray[np.float32]:
    """Of the logits below their row's highest: from 0 to 1, in memory of our own."""
    below = logits - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float32] = np.exp(below, out=below)
    return found


MEASURES = {"softmax_diff": softmax_diff, "softmax_max": softmax_max}
"""Measures of logits by name."""
