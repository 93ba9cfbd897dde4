"""DEL: what it learns from a round, what it chooses, and when it stops drafting."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.layouts import NOTHING, of_cuts, request, singles

from edgedec.errors import InputError
from edgedec.runtime.depth.acceptance import Acceptance, kind_of
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.costs import Costs
from edgedec.runtime.depth.del_ import Del, DelPlanner
from edgedec.runtime.depth.options import check
from edgedec.runtime.depth.passes import through
from edgedec.runtime.depth.plan import Plan, Signals

THREE = of_cuts(6, [1, 3])
EVERYTHING = through([0, 1, 2])


def clock(stage: float, head: float, more: float = 0.0, deep: float = 1.0) -> Clock:
    """Stages take as long, the last one `deep` times that, and further positions a part more."""
    found = Clock()
    for positions in range(1, 20):
        factor = 1 + more * (positions - 1)
        for index in range(3):
            found.add(("stage", index, "full"), positions, stage * factor * (deep, 1, 1)[index - 2])
        found.add(("head",), positions, head * factor)
    return found


def shown(
    targets: list[int], first: list[int], second: list[int], sure: float = 0.9, **more: object
) -> Signals:
    """A verified round in which both exits were read."""
    return Signals(
        tokens=tuple(targets),
        targets=np.array(targets),
        shadow_tokens=np.array([first, second]),
        shadow_probabilities=np.full((2, len(targets)), sure, np.float32),
        **more,  # type: ignore[arg-type]
    )


def test_trace() -> None:
    planner = Del(max=3, omega=0.5).start(THREE, request())
    reads = Plan(EVERYTHING, "verify", shadow=(0, 1))
    # nothing is known: no drafts, all exits are read
    assert planner.plan(1, NOTHING) == reads
    # The first exit was wrong, the second right: acceptance (0 + 1) / 3 = .333 and .667. The stages
    # take 1, 1 and 10, the head 0.1, so full depth gives 1 / 12.1 = 0.083 tokens a second; the
    # first exit at best (1 + .333) / (1.1 + 12.1) = 0.101; the second with one draft
    # (1 + .667) / (2.1 + 12.1) = 0.117, with three (1 + .667 + .444 + .296) / (6.3 + 12.1) = 0.131.
    times = clock(1, 0.1, deep=10)
    seen = shown([7], [5], [7], clock=times)
    draft = Plan(through([0, 1]), "draft", wait=True, measure="softmax_max", shadow=(0, 1))
    assert planner.plan(2, seen) == draft
    learned = planner.learned
    assert np.allclose(learned.counts.mean(), [1 / 3, 2 / 3])
    # So a token is worth 18.4 / 2.407 = 7.643 seconds; feeding a draft takes 2, choosing one 0.1.
    assert math.isclose(learned.worth, 7.6431, abs_tol=1e-4)
    assert math.isclose(learned.feed, 2)
    assert math.isclose(learned.head, 0.1)
    # A draft of .9 was right once: (1 + 5 * .667) / 6 = .722; of others .667 is known. One of .7
    # promises .667 * 7.643 = 5.1 > 2, the next .667 * 5.1 = 3.4 > 2.1.
    assert planner.plan(2, Signals(token=4, probability=0.7)) == draft
    # .667 * .722 * 7.643 = 3.68, the next .667 * 3.68 = 2.45
    assert planner.plan(2, Signals(token=4, probability=0.9)) == draft
    assert planner.plan(2, Signals(token=4, probability=0.9)) == reads  # 3 drafts are the most
    # Two of three held. Counts of the second exit: right .5 + 2, wrong 1, (2.5 + 1) / 5.5 = .636.
    seen = shown([4, 4, 8], [4, 0, 0], [4, 4, 4], drafted=3, accepted=2, clock=times)
    unread = replace(draft, shadow=())
    assert planner.plan(3, seen) == unread  # the choice was confirmed
    assert np.allclose(learned.counts.right.sum(axis=1), [1, 2.5])
    assert np.allclose(learned.counts.wrong.sum(axis=1), [0.5 + 2, 1])
    # Now two drafts are best, (1 + .636 + .405) / 16.3 = 0.12523: 7.985 seconds a token. Drafts of
    # .9 hold with (2.5 + 5 * .636) / 8.5 = .668, of others with .636.
    assert math.isclose(learned.worth, 7.985, abs_tol=1e-3)
    assert math.isclose(learned.by_kind[5], 0.66845, abs_tol=1e-4)
    # .636 * 7.985 = 5.1, next 3.2; .405 * 7.985 = 3.23, but the next .636 * 3.23 = 2.06 < 2.1
    assert planner.plan(3, Signals(token=4, probability=0.05)) == unread
    assert planner.plan(3, Signals(token=4, probability=0.05)) == Plan(EVERYTHING, "verify")
    # Not read: only the drafting exit learns, from its own drafts up to the first that was wrong.
    assert planner.plan(4, Signals(tokens=(9,), drafted=2, accepted=0)) == draft
    assert np.allclose(learned.counts.right.sum(axis=1), [1, 1.25])
    assert np.allclose(learned.counts.wrong[1], [1, 0, 0, 0, 0, 0.5, 0])
    # This one reads again. Nothing may follow the draft: it need not run itself.
    finish = planner.plan(4, Signals(token=1, probability=0.99, ended=True))
    assert finish == Plan(through([2]), "verify", shadow=(0, 1))


def test_drafts_that_are_not_worth_their_way_are_compared_only() -> None:
    times = clock(1, 0.1, deep=10)
    planner = Del().start(THREE, request())
    planner.plan(1, NOTHING)
    planner.learned.counts.right[1, 5] = 60
    planner.learned.counts.wrong[1, 0] = 60
    assert planner.plan(2, shown([7], [5], [7], clock=times)).then == "draft"
    # Drafts below .1 never held: 5 * .5 / 65 = .04, which no draft's way of 2 seconds is worth.
    assert planner.learned.by_kind[0] < 0.05
    doubtful = planner.plan(2, Signals(token=4, probability=0.05))
    assert doubtful == Plan(through([2]), "verify", shadow=(0, 1))


def test_the_next_text_goes_on_with_what_was_learned() -> None:
    times = clock(1, 0.1, deep=10)
    policy = Del(max=3)
    first = policy.start(THREE, request())
    assert first.plan(1, Signals(clock=times)).then == "verify"
    assert first.plan(2, shown([7], [5], [7], clock=times)).then == "draft"
    # another text of the same session, and one of another
    assert policy.start(THREE, request()).plan(1, Signals(clock=times)).then == "draft"
    assert policy.start(THREE, request()).plan(1, Signals(clock=Clock())).then == "verify"


def test_steps_aside_where_drafts_do_not_pay() -> None:
    planner = Del(interval=4).start(THREE, request())
    seen = shown([7], [5], [5], clock=clock(1, 0.1))
    plans = [planner.plan(step, seen) for step in range(1, 22)]
    reads = [len(plan.shadow) > 0 for plan in plans]
    # all exits are wrong: full depth, read at intervals of 1, 2, 4, 4, ...
    assert [step for step, read in enumerate(reads) if read] == [0, 1, 3, 7, 11, 15, 19]
    assert all(
        plan == Plan(EVERYTHING) for plan, read in zip(plans, reads, strict=True) if not read
    )


def test_a_dear_head_moves_the_choice() -> None:
    # Both exits hold equally. A cheap head: the shallower is better. A head that is much
    # dearer than all stages: no exit pays.
    for head, expected in ((0.01, 0), (30.0, None)):
        planner = Del().start(THREE, request())
        planner.learned.counts.right[:, 5] = 4
        planner.learned.counts.wrong[:, 5] = 1
        planner.plan(1, NOTHING)
        planner.plan(2, shown([7], [7], [7], clock=clock(1, head)))
        assert planner.learned.chosen == expected


def test_costs() -> None:
    drafts = np.array([0, 1, 4])
    # In layers: stages of 1, 2 and 3, a head as dear as one layer; 5 % for a further position.
    # From the first stage: drafts * (1 + 1), all of 7, and drafts * .05 * (2 + 3 + 1).
    assert np.allclose(Costs(None, THREE, 19).rounds(1, drafts), [7, 9.3, 16.2])
    # Measured: 10 for a stage and 2 for the head, 10 % for a further position.
    measured = clock(10, 2, more=0.1)
    assert np.allclose(Costs(measured, THREE, 19).rounds(2, drafts), [32, 55.2, 124.8])
    # A stage that was measured for several positions only is as dear by layers as the others.
    part = Clock()
    part.add(("stage", 0, "full"), 1, 10)  # 10 a layer
    part.add(("stage", 1, "full"), 3, 24)  # 20 for one, 10 % for a further one
    part.add(("stage", 1, "full"), 500, 9999)  # a prompt
    part.add(("stage", 1, "fill"), 1, 9999)
    # the third stage 30, the head 10; all 70; each draft from the first 20 + .1 * 60
    assert np.allclose(Costs(part, THREE, 19).rounds(1, drafts), [70, 96, 174])


@given(st.data())
def test_counts_decay(data: st.DataObject) -> None:
    omega = data.draw(st.floats(0, 1))
    counts = Acceptance(2, omega)
    right, wrong = np.zeros(2), np.zeros(2)
    for _ in range(data.draw(st.integers(0, 6))):
        n = data.draw(st.integers(1, 4))
        held = np.array(data.draw(st.lists(st.booleans(), min_size=2 * n, max_size=2 * n)))
        held = held.reshape(2, n)
        sure = st.lists(st.floats(0, 1, width=32), min_size=2 * n, max_size=2 * n)
        counts.add(held, np.array(data.draw(sure), np.float32).reshape(2, n))
        right = omega * right + held.sum(axis=1)
        wrong = omega * wrong + n - held.sum(axis=1)
    assert np.allclose(counts.right.sum(axis=1), right)
    assert np.allclose(counts.wrong.sum(axis=1), wrong)
    assert np.allclose(counts.mean(), (right + 1) / (right + wrong + 2))
    for place in range(2):
        mean, by_kind = counts.of(place)
        assert math.isclose(mean, counts.mean()[place])
        assert all(0 < chance < 1 for chance in by_kind)


def test_kinds_of_drafts() -> None:
    counts = Acceptance(1, 1.0)
    counts.add_one(0, [0.96, 0.7, 0.01, 0.5], accepted=2)  # nobody knows of the last
    # All: (2 + 1) / 5 = .6; of a kind that held once (1 + 3) / 6, did not (0 + 3) / 6, none 3 / 5.
    _, found = counts.of(0)
    expected = {0.99: 4 / 6, 0.61: 4 / 6, 0.8: 4 / 6, 0.05: 0.5, 0.1: 0.5, 0.3: 0.6}
    for probability, chance in expected.items():
        assert math.isclose(found[kind_of(probability)], chance)


@given(st.data())
def test_rounds_end(data: st.DataObject) -> None:
    most = data.draw(st.integers(1, 5))
    planner: DelPlanner = Del(most, interval=3).start(THREE, request())
    signals = NOTHING
    for step in range(1, 12):
        drafted: list[int] = []
        for _ in range(most + 1):
            plan = planner.plan(step, signals)
            if plan.then in ("verify", "choose"):
                break
            assert plan.wait
            assert plan.passes[0].stage == 0
            drafted.append(data.draw(st.integers(0, 1)))
            signals = Signals(
                token=drafted[-1],
                probability=data.draw(st.floats(0, 1)),
                ended=data.draw(st.booleans()),
            )
        else:
            raise AssertionError("the round never ended")
        assert plan.passes[-1].stage == 2
        accepted = data.draw(st.integers(0, len(drafted)))
        targets = [*drafted[:accepted], 7]
        found = st.lists(st.integers(0, 1), min_size=len(targets), max_size=len(targets))
        times = data.draw(st.none() | st.just(clock(1, 0.5)))
        signals = Signals(
            tokens=tuple(targets), drafted=len(drafted), accepted=accepted, clock=times
        )
        if plan.shadow:
            signals = shown(
                targets,
                data.draw(found),
                data.draw(found),
                drafted=len(drafted),
                accepted=accepted,
                clock=times,
            )


def test_refusals() -> None:
    with pytest.raises(InputError, match="max=0"):
        Del(max=0)
    with pytest.raises(InputError, match=r"omega=1.5 is out of range: give 0 to 1"):
        Del(omega=1.5)
    with pytest.raises(InputError, match="interval=0"):
        Del(interval=0)
    with pytest.raises(InputError, match="exits=8"):
        check(Del(exits=(8,)), singles(8))
    with pytest.raises(InputError, match="it has too few"):
        check(Del(), of_cuts(1, []))
