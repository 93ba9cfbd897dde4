"""Drafts are continuations that occurred before, and failing ones stop costing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.layouts import full, of_cuts

from edgedec.errors import InputError
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.ngram import Ngram, NgramPlanner, Table
from edgedec.runtime.depth.options import check
from edgedec.runtime.depth.plan import Plan, Request, Signals

ONE = of_cuts(3, [])
PLAIN = full(ONE)


def start(
    policy: Ngram, prompt: list[int], source: list[int] | None = None, limit: int = 99
) -> NgramPlanner:
    sources = None if source is None else [source]
    return policy.start(ONE, Request(1, limit, sources, [prompt]))


def drafts(*tokens: int) -> Plan:
    return Plan(PLAIN.passes, "verify", draft=tokens)


def test_trace_with_a_prompt() -> None:
    planner = start(Ngram(n=3, drafts=4), [1, 2, 3, 4, 1, 2])
    # the prompt is followed by 3: "2 3" was followed by 4 1 2 3
    assert planner.plan(1, Signals(tokens=(3,))) == drafts(4, 1, 2, 3)
    # accepted 4 1, then 9: "1 9" and "9" are new
    assert planner.plan(2, Signals(tokens=(4, 1, 9), drafted=4, accepted=2)) == PLAIN
    # "9 2" is new, "2" was followed last by 3 4 1 9
    assert planner.plan(3, Signals(tokens=(2,))) == drafts(3, 4, 1, 9)
    # nothing held, so drafts halve: "2 2" is new, "2" was followed by 2, a loop
    assert planner.plan(4, Signals(tokens=(2,), drafted=4, accepted=0)) == drafts(2, 2)


def test_trace_with_a_source() -> None:
    planner = start(Ngram(n=3, drafts=3), [0], source=[5, 6, 7, 8])
    assert planner.plan(1, Signals(tokens=(5,))) == drafts(6, 7, 8)
    # what follows the end of the source is not the start of the target
    assert planner.plan(2, Signals(tokens=(6, 7), drafted=3, accepted=1)) == drafts(8)
    assert planner.plan(3, Signals(tokens=(8,))) == PLAIN


def test_no_drafts_beyond_the_limit() -> None:
    planner = start(Ngram(drafts=6), [1, 1, 1], limit=4)
    # 3 tokens may follow the first; the pass adds one itself
    assert planner.plan(1, Signals(tokens=(1,))) == drafts(1, 1)
    assert planner.plan(2, Signals(tokens=(1, 1), drafted=2, accepted=1)) == PLAIN


def test_failing_drafts_pause_longer_and_longer() -> None:
    planner = start(Ngram(drafts=2), [1, 1])
    signals = Signals(tokens=(1,))
    drafted = []
    for step in range(1, 41):
        plan = planner.plan(step, signals)
        drafted.append(len(plan.draft))
        # always 1 where it drafted anything else: never accepted
        signals = Signals(tokens=(1,), drafted=len(plan.draft), accepted=0)
    # 2, halved to 1, then pauses of 1, 2, 4, 8, 16
    expected = [2, 1]
    for pause in (1, 2, 4, 8, 16):
        expected += [0] * pause + [1]
    assert drafted == [*expected, 0, 0]


def test_the_next_text_goes_on_at_the_pace_of_the_last() -> None:
    clock = Clock()
    first = start(Ngram(drafts=4), [1, 1])
    assert first.plan(1, Signals(tokens=(1,), clock=clock)) == drafts(1, 1, 1, 1)
    assert first.plan(2, Signals(tokens=(1,), drafted=4, clock=clock)) == drafts(1, 1)
    second = start(Ngram(drafts=4), [1, 1])
    assert second.plan(1, Signals(tokens=(1,), clock=clock)) == drafts(1, 1)
    assert second.plan(2, Signals(tokens=(1,), drafted=2, clock=clock)) == drafts(1)
    assert second.plan(3, Signals(tokens=(1,), drafted=1, clock=clock)) == PLAIN


def test_accepted_drafts_grow_again() -> None:
    planner = start(Ngram(drafts=4), [1, 1, 1])
    planner.pace.length, planner.pace.pauses = 1, 8
    lengths = []
    signals = Signals(tokens=(1,))
    for step in range(1, 4):
        count = len(planner.plan(step, signals).draft)
        lengths.append(count)
        signals = Signals(tokens=(1,) * (count + 1), drafted=count, accepted=count)
    assert lengths == [1, 2, 4]
    assert planner.pace.pauses == 0


def occurs(text: list[int], run: list[int]) -> bool:
    return any(text[i : i + len(run)] == run for i in range(len(text) - len(run) + 1))


@given(
    st.lists(st.integers(0, 3), max_size=20),
    st.lists(st.integers(0, 3), min_size=1, max_size=20),
    st.integers(2, 5),
    st.integers(1, 8),
)
def test_drafts_followed_the_longest_match(
    source: list[int], text: list[int], n: int, most: int
) -> None:
    table = Table(n - 1, 1)
    table.extend(source)
    table.end()
    table.extend(text)
    found = list(table.continuation(most))
    longest = next(
        (k for k in range(n - 1, 0, -1) if len(text) >= k and any_follows(source, text, text[-k:])),
        0,
    )
    assert bool(found) == bool(longest)
    if found:
        # the match and the draft occur in one piece; or in the text that they themselves continue
        assert occurs(source, text[-longest:] + found) or occurs(
            (text + found)[:-1], text[-longest:] + found
        )
        assert len(found) <= most


def any_follows(source: list[int], text: list[int], run: list[int]) -> bool:
    return any(
        part[i : i + len(run)] == run and i + len(run) < len(part)
        for part in (source, text)
        for i in range(len(part))
    )


@given(st.data())
def test_every_step_is_one_plan(data: st.DataObject) -> None:
    policy = Ngram(data.draw(st.integers(2, 4)), data.draw(st.integers(1, 6)))
    limit = data.draw(st.integers(1, 20))
    planner = start(policy, [0, 1, 0], [1, 0, 1], limit)
    made, signals = 1, Signals(tokens=(data.draw(st.integers(0, 1)),))
    step = 0
    while made < limit:
        step += 1
        plan = planner.plan(step, signals)
        assert plan == drafts(*plan.draft) if plan.draft else plan == PLAIN
        assert len(plan.draft) <= policy.drafts
        assert made + len(plan.draft) + 1 <= limit
        accepted = data.draw(st.integers(0, len(plan.draft)))
        tokens = (*plan.draft[:accepted], data.draw(st.integers(0, 1)))
        made += len(tokens)
        signals = Signals(tokens=tokens, drafted=len(plan.draft), accepted=accepted)


def test_works_on_every_bundle() -> None:
    check(Ngram(), ONE)
    check(Ngram(), of_cuts(4, [1, 2]))


def test_refusals() -> None:
    with pytest.raises(InputError, match="n=1 is out of range"):
        Ngram(n=1)
    with pytest.raises(InputError, match="drafts=0"):
        Ngram(drafts=0)
    with pytest.raises(InputError, match="least=3 is out of range: give 1 to 2"):
        Ngram(n=3, least=3)
