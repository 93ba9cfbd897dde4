"""A stand-in for a model, and the loop that a generator would run around a search."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edgedec.runtime.search import Hypothesis, Search

Logits = NDArray[np.float32]
Model = Callable[[Sequence[int]], Logits]
Drive = Callable[[Search, Model, Sequence[Sequence[int]]], list[Hypothesis]]


class TableModel:
    """Logits `float32 [V]` as a fixed function of a prefix: its last two tokens and its length."""

    def __init__(
        self, vocab: int, seed: int, scale: float = 3.0, boost: dict[int, float] | None = None
    ) -> None:
        rng = np.random.default_rng(seed)
        self.vocab = vocab
        self._table = (rng.normal(size=(211, vocab)) * scale).astype(np.float32)
        for token, bonus in (boost or {}).items():
            self._table[:, token] += np.float32(bonus)

    def __call__(self, prefix: Sequence[int]) -> Logits:
        last, before = prefix[-1], prefix[-2] if len(prefix) > 1 else 97
        logits: Logits = self._table[(last * 31 + before * 17 + len(prefix) % 3) % len(self._table)]
        return logits


def _drive(search: Search, model: Model, prompts: Sequence[Sequence[int]]) -> list[Hypothesis]:
    beams = search.rows // len(prompts)
    rows = [list(prompt) for prompt in prompts for _ in range(beams)]
    finished = np.zeros(len(prompts), np.bool_)
    could_skip = False
    for _ in range(1000):
        logits = np.stack([model(row) for row in rows])
        logits.flags.writeable = False  # a search must not edit what belongs to a session
        assert not (could_skip and search.needs_logits), "needs_logits turned True on the way"
        could_skip = not search.needs_logits
        step = search.advance(logits.argmax(axis=1), logits if search.needs_logits else None)
        assert step.tokens.dtype == np.int64
        assert step.tokens.shape == (search.rows,)
        assert not (finished & ~step.finished).any(), "a finished input came back to life"
        finished = step.finished
        if step.parents is not None:
            assert step.parents.dtype == np.int64
            assert (step.parents // beams == np.arange(search.rows) // beams).all()
            rows = [list(rows[parent]) for parent in step.parents]
        for row, token in zip(rows, step.tokens, strict=True):
            row.append(int(token))
        assert step.done == finished.all()
        if step.done:
            return search.results()
    raise AssertionError("the search does not end")


@pytest.fixture(scope="session")
def drive() -> Drive:
    """Run a search to its end with a model, checking the contract of every step."""
    return _drive


@pytest.fixture(scope="session")
def table_model() -> type[TableModel]:
    """The class of the stand-in models."""
    return TableModel
