"""Sampling with temperature, top-k and top-p, repeatable by a seed.

The distribution is that of transformers; the tokens for a seed are not, since we draw from NumPy's
PCG64. Each row draws from a stream of its own, made from the seed and the row's index, one number
for each token it generates: what a row becomes does not depend on the rest of the batch.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.processors import Scores, Tokens
from edgedec.runtime.search.rows import check_choice


class Sampler:
    """Draws one token for each row.

    Args:
        rows: Number of rows.
        temperature: Divides the scores; above 0.
        top_k: Number of most probable tokens to draw from; 0 for all.
        top_p: Probability that the tokens to draw from must reach; 1 for all.
        seed: None draws one from the operating system.
        first_row: Index of the first row's stream. A file run in several batches gives the same
            lines whatever the batch size if this counts on from batch to batch.
    """

    needs_scores = True

    def __init__(
        self,
        rows: int,
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        seed: int | None,
        first_row: int = 0,
    ) -> None:
        entropy = np.random.SeedSequence(seed).entropy
        self._streams = [
            np.random.Generator(
                np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=(first_row + row,)))
            )
            for row in range(rows)
        ]
        # Kept, so that copies draw what this one will.
        self._numbers: list[list[float]] = [[] for _ in range(rows)]
        self._used = [0] * rows
        self._temperature = temperature
        self._top_k = top_k
        self._top_p = top_p

    def __call__(self, scores: Scores, wanted: NDArray[np.bool_]) -> Tokens:
        """Return tokens `int64 [rows]` for scores `float32 [rows, V]`; 0 where not `wanted`."""
        tokens = np.zeros(len(scores), np.int64)
        for row in np.flatnonzero(wanted):
            ids, probabilities = distribution(
                scores[row], self._temperature, self._top_k, self._top_p
            )
            tokens[row] = ids[draw(probabilities, self._number(int(row)))]
        return tokens

    def copy(self) -> Sampler:
        """A sampler that will draw the same tokens from the same scores."""
        other = copy.copy(self)
        other._used = list(self._used)
        return other

    def _number(self, row: int) -> float:
        """The row's next random number."""
        numbers, index = self._numbers[row], self._used[row]
        if index == len(numbers):
            numbers.append(self._streams[row].random())
        self._used[row] += 1
        return numbers[index]


def distribution(
    scores: NDArray[np.float32], temperature: float, top_k: int, top_p: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the tokens to draw from, ascending, and their probabilities, which sum to 1.

    Temperature comes first, then top-k, then top-p over what is left. Tokens as probable as the
    k-th stay; of several that are equal where top-p ends, the lowest ids stay.

    Args:
        scores: `float32 [V]`, logits; -inf for tokens that are ruled out.
        temperature: Above 0.
        top_k: 0 for all.
        top_p: From 0 (the most probable token only) to 1 (all).

    Returns:
        Ids `int64 [n]` and probabilities `float64 [n]`.

    Raises:
        EdgedecError: a score is NaN.
        InputError: every score is -inf.
    """
    highest = scores.max()
    check_choice(highest)
    lowest = -np.inf
    if 0 < top_k < len(scores):
        lowest = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
    ids = np.flatnonzero((scores >= lowest) & (scores > -np.inf))
    with np.errstate(over="ignore"):  # a tiny temperature leaves only the highest, as it should
        weights = np.exp((scores[ids].astype(np.float64) - highest) / temperature)
    probabilities: NDArray[np.float64] = weights / weights.sum()
    if top_p < 1:
        kept = _nucleus(probabilities, top_p)
        ids = ids[kept]
        probabilities = probabilities[kept] / probabilities[kept].sum()
    return ids.astype(np.int64), probabilities


def _nucleus(probabilities: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """Return the indices, ascending, of the fewest most probable tokens that reach `top_p`."""
    # All tokens below this together weigh less than 1 - top_p, so none is needed to reach it;
    # sorting the few others is what makes this fast.
    likely = np.flatnonzero(probabilities >= (1 - top_p) / len(probabilities))
    order = likely[np.argsort(-probabilities[likely], kind="stable")]
    reached = np.cumsum(probabilities[order])
    # a token stays while those before it have not reached the sum yet
    count = int(np.searchsorted(reached, top_p, side="left")) + 1
    return np.sort(order[:count])


def draw(probabilities: NDArray[np.float64], uniform: float) -> int:
    """Return the index that a number from [0, 1) falls on; never one of probability 0."""
    cumulative = np.cumsum(probabilities)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    # rounding can push the product onto the very end
    return min(index, int(np.flatnonzero(probabilities)[-1]))
