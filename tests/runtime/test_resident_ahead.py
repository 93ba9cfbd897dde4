"""Steps made ahead, against a model that is asked for every step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgedec.runtime.resident.ahead import MOST, Ahead

Tokens = NDArray[np.int64]


def follow(tokens: Tokens) -> Tokens:
    """What a model would choose after these tokens."""
    return (7 * tokens + 3) % 11


@given(
    rows=st.integers(1, 3),
    fed=st.lists(st.tuples(st.booleans(), st.integers(0, 10)), max_size=40),
    ended=st.integers(0, 3),
    room=st.integers(1, 60),
)
def test_what_is_served_is_what_the_model_says(
    rows: int, fed: list[tuple[bool, int]], ended: int, room: int
) -> None:
    ahead = Ahead()
    live = None if ended == 0 else np.arange(rows) >= ended
    tokens = np.zeros(rows, np.int64)
    for obedient, other in fed:
        if not obedient:
            tokens = (tokens + other) % 11
        # What ended is fed padding.
        given = tokens if live is None else np.where(live, tokens, 0)
        found = ahead.serve(given, live)
        if found is None:
            steps = ahead.steps(room)
            assert 1 <= steps <= min(room, MOST)
            choices = [follow(given)]
            while len(choices) < steps:
                choices.append(follow(choices[-1]))
            found = ahead.keep(np.array(choices))
        wanted = follow(given)
        here = slice(None) if live is None else live
        np.testing.assert_array_equal(found[here], wanted[here])
        tokens = found.copy()
        room = max(room - 1, 1)


def launches(ahead: Ahead, count: int, room: int = 1000) -> list[int]:
    """Feed what was foreseen so many times; the steps of each launch."""
    tokens, made = np.zeros(1, np.int64), []
    for _ in range(count):
        found = ahead.serve(tokens, None)
        if found is None:
            made.append(ahead.steps(room))
            choices = [follow(tokens)]
            while len(choices) < made[-1]:
                choices.append(follow(choices[-1]))
            found = ahead.keep(np.array(choices))
        tokens = found
    return made


def test_launches_grow_while_nothing_contradicts_them() -> None:
    ahead = Ahead()
    assert launches(ahead, 31) == [1, 2, 4, 8, 8, 8]
    ahead.clear()
    assert launches(ahead, 8) == [1, 2, 4, 8]
    assert launches(Ahead(), 9, room=3) == [1, 2, 2, 2, 2]


def test_a_contradiction_is_not_served() -> None:
    ahead = Ahead()
    ahead.keep(np.array([[4, 5], [6, 7], [8, 9]]))
    assert ahead.serve(np.array([4, 0]), np.array([True, False])) is not None
    assert ahead.serve(np.array([6, 0]), None) is None
    assert ahead.serve(np.array([6, 7]), None) is None  # it is gone
    assert ahead.steps(1000) == 1
