"""Properties of the searches that need no other implementation to compare with."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.errors import EdgedecError, InputError
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.search import Hypothesis, Search, make_search
from edgedec.runtime.search.beam import BeamSearch
from edgedec.runtime.search.history import History
from edgedec.runtime.search.sampling import Sampler, distribution, draw
from edgedec.runtime.search.topk import top_k

Model = Callable[[Sequence[int]], NDArray[np.float32]]
Drive = Callable[[Search, Model, Sequence[Sequence[int]]], list[Hypothesis]]

STRATEGIES: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    {"do_sample": True, "seed": 5},
    {"num_beams": 3},
    {"num_beams": 4, "early_stopping": True, "length_penalty": 0.5},
    {"num_beams": 2, "early_stopping": "never", "no_repeat_ngram_size": 2},
]


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
def test_a_row_does_not_depend_on_its_batch(
    options: dict[str, Any], drive: Drive, table_model: Any
) -> None:
    """Unequal prompts, with every option that counts tokens."""
    config = GenerationConfig(
        eos_token_ids=(1, 2), pad_token_id=0, max_length=14, min_length=6, forced_eos_token_id=1,
        forced_bos_token_id=9, begin_suppress_tokens=(3, 4, 5), bad_words_ids=((7,), (8, 3, 9)),
        **options,
    )  # fmt: skip
    for seed in range(10):
        model = table_model(20, seed, boost={1: 2.0})
        prompts = [[5], [6, 7, 8], [3, 4], [3], [11, 12, 13, 14, 15, 16]]
        together = drive(make_search(config, 5, 20, prompts, 12), model, prompts)
        for row, prompt in enumerate(prompts):
            search = make_search(config, 1, 20, [prompt], 12, first_row=row)
            (alone,) = drive(search, model, [prompt])
            assert alone.tokens == together[row].tokens
            assert alone.finish_reason == together[row].finish_reason
            assert len(alone.tokens) <= min(12, 14 - len(prompt))
            if len(prompt) == 1:
                assert alone.tokens[0] == 9
                assert alone.tokens[1] not in (3, 4, 5)
            else:
                assert alone.tokens[0] not in (3, 4, 5)
            assert alone.tokens[-1] in (1, 2)
            assert not {1, 2} & set(alone.tokens[: 6 - len(prompt)])
            assert 7 not in alone.tokens


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    strategy=st.sampled_from(STRATEGIES),
    low=st.integers(0, 6),
    limit=st.integers(1, 9),
    banned=st.lists(st.integers(2, 11), max_size=4),
)
def test_limits_and_bans(
    seed: int,
    strategy: dict[str, Any],
    low: int,
    limit: int,
    banned: list[int],
    drive: Drive,
    table_model: Any,
) -> None:
    config = GenerationConfig(
        eos_token_ids=(1,), max_new_tokens=limit, min_new_tokens=low,
        suppress_tokens=tuple(banned), **strategy,
    )  # fmt: skip
    prompts = [[5], [6, 7]]
    model = table_model(14, seed, boost={1: 3.0})
    for result in drive(make_search(config, 2, 14, prompts, 50), model, prompts):
        assert not set(banned) & set(result.tokens)
        assert min(low, limit) <= len(result.tokens) <= limit
        assert 1 not in result.tokens[:-1]
        assert (result.tokens[-1] == 1) == (result.finish_reason == "stop")
        if result.finish_reason == "length":
            assert len(result.tokens) == limit
        if low and len(result.tokens) <= low < limit:
            assert result.tokens[-1] != 1


@pytest.mark.parametrize("prompt", [[5], [5, 5], [5, 5, 5], [6, 5, 5, 5]])
def test_bad_words_longer_than_the_prompt(prompt: list[int]) -> None:
    config = GenerationConfig(bad_words_ids=((5, 5, 5, 8),))
    logits = np.zeros((1, 9), np.float32)
    logits[0, 8] = 1
    step = make_search(config, 1, 9, [prompt], 9).advance(None, logits)
    assert step.tokens.tolist() == [0 if prompt[-3:] == [5, 5, 5] else 8]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_twice(size: int, drive: Drive, table_model: Any) -> None:
    for seed, beams in itertools.product(range(5), (1, 3)):
        config = GenerationConfig(no_repeat_ngram_size=size, num_beams=beams, max_new_tokens=15)
        prompts = [[5, 6], [7, 8, 9]]
        model = table_model(30, seed)
        for prompt, result in zip(
            prompts, drive(make_search(config, 2, 30, prompts, 99), model, prompts), strict=True
        ):
            text = prompt + result.tokens
            grams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
            assert len(grams) == len(set(grams))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 2.0])
def test_wide_beams_find_the_best_of_all_sequences(
    length_penalty: float, drive: Drive, table_model: Any
) -> None:
    """With as many beams as there are sequences nothing is pruned: compare with brute force."""
    vocab, steps, eos = 4, 4, 1
    for seed in range(10):
        model = table_model(vocab, seed, scale=1.5)
        prompt = [2]
        scored: list[tuple[float, list[int]]] = []
        for length in range(1, steps + 1):
            for tokens in itertools.product(range(vocab), repeat=length):
                if eos in tokens[:-1] or (tokens[-1] != eos and length < steps):
                    continue
                total = sum(
                    log_softmax(model([*prompt, *tokens[:i]]))[token]
                    for i, token in enumerate(tokens)
                )
                scored.append((total / length**length_penalty, list(tokens)))
        best = max(scored)
        config = GenerationConfig(
            num_beams=300, eos_token_ids=(eos,), max_new_tokens=steps, early_stopping="never",
            length_penalty=length_penalty,
        )  # fmt: skip
        (found,) = drive(make_search(config, 1, vocab, [prompt], 99), model, [prompt])
        assert found.tokens == best[1]
        assert found.score == pytest.approx(best[0], rel=1e-5)


def test_never_hopes_for_no_more_than_is_possible(drive: Drive) -> None:
    """A negative penalty makes length costly, so hope is measured at the present length."""
    tables = {
        (0,): [0.003, 0.135, 0.860, 0.002],
        (0, 2): [0.003, 0.290, 0.002, 0.705],
        (0, 2, 3): [0.02, 0.95, 0.02, 0.01],
    }

    def model(prefix: Sequence[int]) -> NDArray[np.float32]:
        return np.log(np.array(tables.get(tuple(prefix), [0.25] * 4), np.float32))

    config = GenerationConfig(
        num_beams=2, length_penalty=-1, early_stopping="never", eos_token_ids=(1,),
        max_new_tokens=14,
    )  # fmt: skip
    # two beams have ended before: [1] with -2.00 and [2, 1] with -2.78
    (found,) = drive(make_search(config, 1, 4, [[0]], 99), model, [[0]])
    assert found.tokens == [2, 3, 1]
    assert found.score == pytest.approx(3 * math.log(0.860 * 0.705 * 0.95), rel=1e-5)


def test_one_beam_is_greedy(drive: Drive, table_model: Any) -> None:
    for seed in range(20):
        model = table_model(20, seed, boost={1: 2.0})
        prompts = [[5], [6], [7]]
        config = GenerationConfig(eos_token_ids=(1,), max_new_tokens=10)
        greedy = drive(make_search(config, 3, 20, prompts, 99), model, prompts)
        one = BeamSearch(
            prompts, [10] * 3, beams=1, length_penalty=1.0, early_stopping=True,
            renormalize=False, processors=[], forced=None, eos=[1], pad=0,
        )  # fmt: skip
        assert [beam.tokens for beam in drive(one, model, prompts)] == [g.tokens for g in greedy]


def test_beam_score_is_the_normalised_log_probability(drive: Drive, table_model: Any) -> None:
    model = table_model(50, 3, boost={1: 1.0})
    prompts = [[5], [6], [7]]
    config = GenerationConfig(eos_token_ids=(1,), num_beams=4, length_penalty=0.7, max_new_tokens=8)
    for prompt, result in zip(
        prompts, drive(make_search(config, 3, 50, prompts, 99), model, prompts), strict=True
    ):
        total = sum(
            log_softmax(model([*prompt, *result.tokens[:i]]))[token]
            for i, token in enumerate(result.tokens)
        )
        assert result.score == pytest.approx(total / len(result.tokens) ** 0.7, rel=1e-5)


def test_logits_are_asked_for_only_as_long_as_they_matter() -> None:
    plain = make_search(GenerationConfig(eos_token_ids=(1,)), 2, 9, [[0]] * 2, 5)
    assert not plain.needs_logits
    step = plain.advance(np.array([4, 1]), None)
    assert step.tokens.tolist() == [4, 1]
    assert step.finished.tolist() == [False, True]
    step = plain.advance(np.array([1, 7]), None)
    assert step.tokens.tolist() == [1, 1]  # padding where nothing else is known: the eos token
    assert step.done
    assert [r.tokens for r in plain.results()] == [[4, 1], [1]]
    with pytest.raises(ValueError, match="over"):
        plain.advance(np.array([1, 7]), None)

    config = GenerationConfig(eos_token_ids=(1,), min_new_tokens=2, forced_eos_token_id=1)
    search = make_search(config, 1, 9, [[0]], 4)
    logits = np.zeros((1, 9), np.float32)
    logits[0, 1], logits[0, 6] = 5, 4
    with pytest.raises(ValueError, match="needs logits"):
        search.advance(np.array([1]), None)
    assert search.advance(np.array([1]), logits).tokens.tolist() == [6]
    assert search.advance(None, logits).tokens.tolist() == [6]
    assert not search.needs_logits
    assert search.advance(np.array([3]), None).tokens.tolist() == [3]
    assert search.advance(np.array([3]), None).tokens.tolist() == [1]  # forced by the limit
    (result,) = search.results()
    assert (result.tokens, result.finish_reason) == ([6, 6, 3, 1], "stop")


def test_first_beam_step_takes_one_row_for_each_input(table_model: Any) -> None:
    model = table_model(20, 0)
    config = GenerationConfig(num_beams=3, eos_token_ids=(1,))
    prompts = [[5], [6]]
    logits = np.stack([model(prompt) for prompt in prompts])
    short = make_search(config, 2, 20, prompts, 9).advance(None, logits)
    full = make_search(config, 2, 20, prompts, 9).advance(None, np.repeat(logits, 3, axis=0))
    assert short.tokens.tolist() == full.tokens.tolist()
    assert short.parents is not None
    assert short.parents.tolist() == [0, 0, 0, 3, 3, 3]


def test_ends_leave_enough_beams_to_run_on() -> None:
    """Even if the most probable tokens of all beams are all ends."""
    logits = np.zeros((3, 40), np.float32)
    logits[:, 1:4] = 9
    logits[:, 20:] = -9
    config = GenerationConfig(
        num_beams=3, eos_token_ids=(1, 2, 3), early_stopping="never", length_penalty=9
    )
    search = make_search(config, 1, 40, [[0]], 9)
    first = search.advance(None, logits)
    assert first.tokens.tolist() == [0, 4, 5]
    second = search.advance(None, logits)
    assert second.tokens.tolist() == [0, 4, 5]
    assert second.parents is not None
    assert second.parents.tolist() == [0, 0, 0]


@pytest.mark.parametrize("beams", [1, 3])
def test_finished_rows_are_fed_padding(beams: int) -> None:
    config = GenerationConfig(num_beams=beams, pad_token_id=7)
    search = make_search(config, 2, 20, [[0], [0]], [1, 3])
    logits = np.random.default_rng(0).normal(size=(2 * beams, 20)).astype(np.float32)
    search.advance(logits.argmax(axis=1), logits)
    step = search.advance(logits.argmax(axis=1), logits)
    assert step.tokens[:beams].tolist() == [7] * beams
    assert step.tokens[beams] != 7
    if step.parents is not None:
        assert step.parents[:beams].tolist() == list(range(beams))


def test_equal_scores_go_to_the_lowest_token() -> None:
    flat = np.zeros((2, 300), np.float32)
    beams = make_search(GenerationConfig(num_beams=2, eos_token_ids=(1,)), 1, 300, [[0]], 9)
    assert beams.advance(None, flat).tokens.tolist() == [0, 2]  # 1 ended
    greedy = make_search(GenerationConfig(suppress_tokens=(0,)), 2, 300, [[0]] * 2, 9)
    assert greedy.advance(None, flat).tokens.tolist() == [1, 1]


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_logits(options: dict[str, Any], bad: float) -> None:
    config = GenerationConfig(**{"repetition_penalty": 1.1, **options})
    search = make_search(config, 2, 9, [[0]] * 2, 9)
    logits = np.zeros((search.rows, 9), np.float32)
    logits[-1, 4] = bad
    with pytest.raises(EdgedecError, match="not finite numbers; a half-precision bundle"):
        search.advance(None, logits)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("options", STRATEGIES, ids=str)
def test_nothing_left_to_choose(options: dict[str, Any], renormalize: bool) -> None:
    config = GenerationConfig(
        suppress_tokens=tuple(range(9)), renormalize_logits=renormalize, **options
    )
    search = make_search(config, 1, 9, [[0]], 9)
    with pytest.raises(InputError, match="rule out every token"):
        search.advance(None, np.zeros((search.rows, 9), np.float32))


def test_what_a_search_cannot_start_from() -> None:
    with pytest.raises(InputError, match="has no tokens"):
        make_search(GenerationConfig(), 2, 9, [[1], []], 5)
    with pytest.raises(InputError, match="max_length=3 counts the prompt"):
        make_search(GenerationConfig(max_length=3), 1, 9, [[1, 2, 3]], 5)
    with pytest.raises(InputError, match="forced_bos_token_id=9 is not in the model's vocabulary"):
        make_search(GenerationConfig(forced_bos_token_id=9), 1, 9, [[1]], 5)
    # ids that cannot be generated anyway may be ruled out
    config = GenerationConfig(suppress_tokens=(50,), bad_words_ids=((50,), (3, 50)))
    make_search(config, 1, 9, [[1]], 5).advance(None, np.zeros((1, 9), np.float32))


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
def test_room_for_each_row(options: dict[str, Any], drive: Drive, table_model: Any) -> None:
    prompts = [[5], [6, 7, 8], [3, 4]]
    for config in (GenerationConfig(**options), GenerationConfig(max_new_tokens=5, **options)):
        search = make_search(config, 3, 20, prompts, [4, 1, 6])
        got = drive(search, table_model(20, 0), prompts)
        assert [len(row.tokens) for row in got] == [4, 1, config.max_new_tokens or 6]
        # the padding of short rows is the end-of-sequence token, but they did not end by it
        endless = replace(config, eos_token_ids=(19,), suppress_tokens=(19,))
        got = drive(make_search(endless, 3, 20, prompts, [4, 1, 6]), table_model(20, 0), prompts)
        assert {row.finish_reason for row in got} == {"length"}
    for room in ([1, 2], [1, 0, 1], 0):
        with pytest.raises(ValueError, match="3 prompts for a batch of 3"):
            make_search(GenerationConfig(), 3, 20, prompts, room)


def test_results_before_the_end(table_model: Any) -> None:
    """An interrupted request still has an answer."""
    model = table_model(20, 0)
    for beams in (1, 3):
        search = make_search(GenerationConfig(num_beams=beams), 1, 20, [[5]], 9)
        assert search.results()[0].tokens == []
        logits = np.repeat(model([5])[None], search.rows, axis=0)
        search.advance(logits.argmax(axis=1), logits)
        assert search.results()[0].tokens == [int(logits[0].argmax())]


@settings(deadline=None)
@given(
    data=st.data(),
    rows=st.integers(1, 4),
    count=st.sampled_from([1, 2, 7, 64, 200, 1000, 3001]),
    distinct=st.sampled_from([1, 3, 10**9]),
    seed=st.integers(0, 99),
)
def test_top_k_is_a_stable_sort(
    data: st.DataObject, rows: int, count: int, distinct: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, distinct, size=(rows, count)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    k = data.draw(st.integers(1, min(count, 40)))
    values, index = top_k(scores, k)
    want = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(index, want)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, want, axis=1))


@settings(deadline=None)
@given(
    vocab=st.integers(1, 300),
    temperature=st.floats(1e-3, 100),
    k=st.integers(0, 320),
    p=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_top_k_and_top_p(vocab: int, temperature: float, k: int, p: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=vocab).astype(np.float32) * 3
    ids, probabilities = distribution(logits, temperature, k, p)
    assert (np.diff(ids) > 0).all()
    assert probabilities.sum() == pytest.approx(1)
    assert 1 <= len(ids) <= (k or vocab)
    assert logits.argmax() in ids

    # what is kept reaches p, and without its least probable token would not
    everything, before = distribution(logits, temperature, k, 1.0)
    kept = np.sort(before[np.isin(everything, ids)])
    assert kept.sum() >= p - 1e-9
    if len(kept) > 1:
        assert kept[1:].sum() < p + 1e-9
    if len(kept) < len(before):
        assert before[~np.isin(everything, ids)].max() <= kept[0]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (7, 1.0), (0, 0.8), (10, 0.9)])
def test_draws_follow_the_distribution(top_k: int, top_p: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    logits = np.random.default_rng(1).normal(size=20).astype(np.float32)
    sampler = Sampler(1, temperature=0.8, top_k=top_k, top_p=top_p, seed=11)
    wanted = np.ones(1, np.bool_)
    drawn = [int(sampler(logits[None], wanted)[0]) for _ in range(4000)]
    ids, probabilities = distribution(logits, 0.8, top_k, top_p)
    assert set(drawn) == set(ids.tolist())
    counts = np.bincount(drawn, minlength=20)[ids]
    assert stats.chisquare(counts, probabilities * len(drawn)).pvalue > 0.01


def test_rows_draw_independently() -> None:
    sampler = Sampler(40, temperature=1.0, top_k=0, top_p=1.0, seed=3)
    flat = np.zeros((40, 1000), np.float32)
    first = sampler(flat, np.ones(40, np.bool_))
    assert len(set(first.tolist())) > 30
    shifted = Sampler(39, temperature=1.0, top_k=0, top_p=1.0, seed=3, first_row=1)
    assert shifted(flat[1:], np.ones(39, np.bool_)).tolist() == first[1:].tolist()


def test_seeds(drive: Drive, table_model: Any) -> None:
    model, prompts = table_model(200, 0, scale=0.3), [[5], [6]]

    def run(seed: int | None) -> list[list[int]]:
        config = GenerationConfig(do_sample=True, seed=seed, max_new_tokens=12, top_k=0)
        return [r.tokens for r in drive(make_search(config, 2, 200, prompts, 99), model, prompts)]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert run(None) != run(None)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_draw_never_takes_the_impossible(uniform: float) -> None:
    assert draw(np.array([0.0, 0.3, 0.0, 0.7, 0.0]), uniform) in (1, 3)


def test_history_grows_and_reorders() -> None:
    history = History([[1, 2, 3], [4]])
    for step in range(200):
        history.append(np.array([step, -step]) + 1000)
        if step == 100:
            history.reorder(np.array([1, 1]))
    assert history.steps == 200
    assert history.generated(0)[:101] == [1000 - step for step in range(101)]
    assert history.generated(0, 102)[-1] == 1101
    assert history.tokens[:, :3].tolist() == [[1, 2, 3], [-1, -1, 4]]
