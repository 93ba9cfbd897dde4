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
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.costs import Costs
from edgedec.runtime.depth.del_ import Counts, Del, DelPlanner
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
    planner = Del(max=3, omega=0.95).start(THREE, request())
    reads = Plan(EVERYTHING, "verify", shadow=(0, 1))
    # nothing is known: no drafts, all exits are read
    assert planner.plan(1, NOTHING) == reads
    # The first exit was wrong, the second right: acceptance (0 + .5) / 2 = .25 and .75. Stages take
    # 1, 1 and 10, the head 0.1, so full depth gives 1 / 12.1 = 0.083 tokens a second; the first
    # exit at best (1 + .25) / (1.1 + 12.1) = 0.095; the second with one draft
    # (1 + .75) / (2.1 + 12.1) = 0.123, with three (1 + .75 + .5625 + .4219) / (6.3 + 12.1) = 0.149.
    times = clock(1, 0.1, deep=10)
    seen = shown([7], [5], [7], clock=times)
    draft = Plan(through([0, 1]), "draft", wait=True, measure="softmax_max", shadow=(0, 1))
    assert planner.plan(2, seen) == draft
    assert np.allclose(planner.learned.counts.acceptance(), [0.25, 0.75])
    assert planner.plan(2, Signals(token=4, probability=0.8)) == draft
    assert planner.plan(2, Signals(token=4, probability=0.8)) == draft
    assert planner.plan(2, Signals(token=4, probability=0.8)) == reads  # 3 drafts are the most
    # Two of three held. Counts of the second exit: right .95 + 2, wrong 1; sure .95 * .9 + 2 * .9,
    # unsure .9: it stops below (.9 + .9) / 2. Its acceptance is 3.45 / 4.95 = .697, so three drafts
    # give 2.52 / 18.4 = 0.137, still more than two with 2.18 / 16.3 = 0.134.
    seen = shown([4, 4, 8], [4, 0, 0], [4, 4, 4], drafted=3, accepted=2, clock=times)
    unread = replace(draft, shadow=())
    assert planner.plan(3, seen) == unread
    assert np.allclose(planner.learned.counts.right, [1, 2.95])
    assert np.allclose(planner.learned.counts.wrong, [0.95 + 2, 1])
    assert math.isclose(planner.learned.stop, 0.9, abs_tol=1e-6)
    # The choice was confirmed, so this round does not read; a doubtful draft is its last.
    assert planner.plan(3, Signals(token=4, probability=0.5)) == Plan(EVERYTHING, "verify")
    # Not read: only the drafting exit learns, from its own drafts.
    assert planner.plan(4, Signals(tokens=(9,), drafted=1, accepted=0)) == draft
    assert np.allclose(planner.learned.counts.right, [1, 0.95 * 2.95])
    assert np.allclose(planner.learned.counts.wrong, [0.95 + 2, 0.95 + 1])
    # .9 of those that held; those that did not: (.95 * .9 + .5) / 1.95 = 0.694872
    assert math.isclose(planner.learned.stop, (0.9 + 0.694872) / 2, abs_tol=1e-6)
    # This one reads again. Nothing may follow the draft: it need not run itself.
    finish = planner.plan(4, Signals(token=1, probability=0.99, ended=True))
    assert finish == Plan(through([2]), "verify", shadow=(0, 1))


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
        planner.learned.counts.right[:] = 4
        planner.learned.counts.wrong[:] = 1
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
    counts = Counts(2, omega)
    right, wrong = np.zeros(2), np.zeros(2)
    for _ in range(data.draw(st.integers(0, 6))):
        n = data.draw(st.integers(1, 4))
        held = np.array(data.draw(st.lists(st.booleans(), min_size=2 * n, max_size=2 * n)))
        held = held.reshape(2, n)
        counts.add(held, np.full((2, n), 0.5))
        right = omega * right + held.sum(axis=1)
        wrong = omega * wrong + n - held.sum(axis=1)
    assert np.allclose(counts.right, right)
    assert np.allclose(counts.wrong, wrong)
    acceptance = counts.acceptance()
    assert ((acceptance > 0) & (acceptance < 1)).all()
    for place in range(2):
        both = counts.right[place] > 0 and counts.wrong[place] > 0
        assert counts.least_sure(place) == pytest.approx(0.5 if both else 0)


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
