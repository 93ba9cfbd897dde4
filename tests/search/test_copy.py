"""A copy of a search chooses as the search will, and leaves it alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.search import make_search
from edgedec.runtime.search.rows import RowSearch

VOCAB = 11
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.5, "seed": 1, "eos_token_ids": [2]},
    {"repetition_penalty": 2.0, "eos_token_ids": [2, 3]},
    {"no_repeat_ngram_size": 2, "temperature": 1.0, "seed": 2},
    {"min_new_tokens": 4, "forced_eos_token_id": 2, "eos_token_ids": [2]},
]


@pytest.mark.parametrize("options", OPTIONS)
@settings(max_examples=20)
@given(ahead=st.lists(st.integers(0, 4), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_copies_look_ahead(options: dict[str, Any], ahead: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(100, 2, VOCAB)).astype(np.float32)
    config = GenerationConfig(max_new_tokens=70).override(**options)
    prompts = [[1, 4, 5], [7]]
    alone, search = (make_search(config, 2, VOCAB, prompts, 70) for _ in range(2))
    assert isinstance(search, RowSearch)
    for step, count in enumerate([60, *ahead]):  # a copy's history grows, and not the original's
        copy, foreseen = search.copy(), []
        for later in range(step, step + count):
            choice = copy.advance(None, logits[later])
            foreseen.append(choice.tokens.tolist())
            if choice.done:
                break
        seen = copy.results()
        other = search.copy()
        other.advance(None, logits[99 - step])  # what another copy chooses means nothing
        assert copy.results() == seen
        expected = alone.advance(None, logits[step])
        found = search.advance(None, logits[step])
        assert found.tokens.tolist() == expected.tokens.tolist()
        assert found.finished.tolist() == expected.finished.tolist()
        assert found.done == expected.done
        assert foreseen[:1] in ([], [found.tokens.tolist()])
        assert search.results() == alone.results()
        if found.done:
            return
        assert search.room == (0 if found.finished[0] else 70 - step - 1)
