"""Choices of bits against all possible ones."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.quantize.budget import Unit, choose_bits


@st.composite
def units(draw: st.DrawFn) -> Unit:
    bits = sorted(draw(st.sets(st.sampled_from([2, 3, 4, 8]), min_size=1)))
    overhead = draw(st.floats(0, 1))
    # losses need not fall with more bits: they are measured
    losses = draw(st.lists(st.floats(0, 100), min_size=len(bits), max_size=len(bits)))
    return Unit(
        weights=draw(st.integers(1, 1000)),
        bits_per_weight={b: b + overhead for b in bits},
        loss=dict(zip(bits, losses, strict=True)),
    )


def mean_bits(some: Sequence[Unit], choice: Sequence[int]) -> float:
    stored = (u.weights * u.bits_per_weight[b] for u, b in zip(some, choice, strict=True))
    return math.fsum(stored) / sum(u.weights for u in some)


def loss(some: Sequence[Unit], choice: Sequence[int]) -> float:
    return math.fsum(u.loss[b] for u, b in zip(some, choice, strict=True))


@given(st.lists(units(), min_size=1, max_size=4), st.floats(1.5, 9.5))
def test_against_all_choices(some: list[Unit], budget: float) -> None:
    possible = [
        choice
        for choice in product(*(unit.loss for unit in some))
        if mean_bits(some, choice) <= budget
    ]
    if not possible:
        with pytest.raises(ValueError, match="too few"):
            choose_bits(some, budget)
        return
    found = choose_bits(some, budget)
    assert mean_bits(some, found) <= budget
    best = min(loss(some, choice) for choice in possible)
    # what one unit can gain at most is what the greedy choice may miss
    step = max(max(unit.loss.values()) - min(unit.loss.values()) for unit in some)
    assert best <= loss(some, found) <= best + step + 1e-9
    for bits in (2, 3, 4, 8):
        equal = (bits,) * len(some)
        if equal in possible:
            assert loss(some, found) <= loss(some, equal)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.data())
def test_budgets_that_steps_use_up_have_optimal_choices(
    sizes: list[int], data: st.DataObject
) -> None:
    """With losses that fall by less each time, the prefixes of the greedy order are optimal."""
    some = []
    for weights in sizes:
        first = data.draw(st.integers(1, 100))
        second = data.draw(st.integers(0, first))
        some.append(
            Unit(weights, {2: 2, 3: 3, 4: 4}, {2: first + second, 3: second, 4: 0}),
        )
    steps = sorted(
        ((u.loss[b] - u.loss[b + 1]) / u.weights, u.weights) for u in some for b in (2, 3)
    )
    taken = steps[data.draw(st.integers(0, len(steps))) :]
    budget = (2 * sum(sizes) + sum(weights for _, weights in taken)) / sum(sizes)
    best = min(
        loss(some, choice)
        for choice in product((2, 3, 4), repeat=len(some))
        if mean_bits(some, choice) <= budget
    )
    assert loss(some, choose_bits(some, budget)) == pytest.approx(best)


def test_sensitive_units_get_more() -> None:
    some = [Unit(100, {2: 2.1, 3: 3.1, 4: 4.1}, {2: 16 * s, 3: 4 * s, 4: s}) for s in (1, 8, 64)]
    assert choose_bits(some, 3.1) == [2, 3, 4]
    assert choose_bits(some, 2.1) == [2, 2, 2]
    assert choose_bits(some, 100) == [4, 4, 4]


def test_a_loss_that_rises_with_bits_is_not_paid_for() -> None:
    assert choose_bits([Unit(10, {2: 2, 3: 3, 4: 4}, {2: 3, 3: 1, 4: 2})], 4) == [3]
    # nor is anything paid for no gain
    assert choose_bits([Unit(10, {2: 2, 3: 3}, {2: 1, 3: 1})], 4) == [2]


def test_no_units_need_nothing() -> None:
    assert choose_bits([], 0) == []


@pytest.mark.parametrize(
    ("unit", "sentence"),
    [
        (Unit(0, {2: 2}, {2: 1}), "needs weights"),
        (Unit(1, {}, {}), "a size and a loss"),
        (Unit(1, {2: 2}, {3: 2}), "same numbers of bits"),
        (Unit(1, {2: math.nan}, {2: 2}), "finite"),
        (Unit(1, {2: 2}, {2: math.inf}), "finite"),
    ],
)
def test_refuses(unit: Unit, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        choose_bits([Unit(3, {4: 4}, {4: 4}), unit], 100)


def test_says_what_the_least_is() -> None:
    some = [Unit(100, {2: 2.25, 4: 4}, {2: 1, 4: 0}), Unit(300, {3: 3.25}, {3: 1})]
    with pytest.raises(ValueError, match=r"2\.9 bits per weight are too few.* 3\.0000"):
        choose_bits(some, 2.9)


def test_hundreds_of_units_are_quick() -> None:
    random = np.random.default_rng(0)
    some = [
        Unit(int(w), {2: 2.05, 3: 3.05, 4: 4.05}, {2: 9 * s, 3: 3 * s, 4: s})
        for w, s in zip(random.integers(10**5, 10**6, 500), random.exponential(1, 500), strict=True)
    ]
    start = time.perf_counter()
    found = choose_bits(some, 3.2)
    assert time.perf_counter() - start < 5
    # with so many units next to nothing of the budget is left
    assert 3.199 < mean_bits(some, found) <= 3.2
    assert set(found) == {2, 3, 4}


def test_what_is_left_is_used() -> None:
    # the best step per bit leads to 4 bits, for which there is no room
    some = [Unit(10, {2: 2, 3: 3, 4: 4}, {2: 10, 3: 9, 4: 0}), Unit(10, {2: 2}, {2: 0})]
    assert choose_bits(some, 2.5) == [3, 2]


def test_equal_bits_can_be_better_than_the_best_steps() -> None:
    # per bit the first unit's second step gains more, but leaves a bit that nobody can use
    some = [
        Unit(10, {2: 2, 3: 3, 4: 4}, {2: 100, 3: 49, 4: 1}),
        Unit(11, {2: 2, 3: 3}, {2: 50, 3: 0}),
    ]
    assert choose_bits(some, 3) == [3, 3]
