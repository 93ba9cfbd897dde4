"""CALM's early exit and FREE's: where a token leaves, and what becomes of the layers above."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.layouts import NOTHING, full, of_cuts, request, singles, sure

from edgedec.errors import InputError
from edgedec.runtime.depth.early_exit import EarlyExit
from edgedec.runtime.depth.free import Free
from edgedec.runtime.depth.options import check, on_layout
from edgedec.runtime.depth.passes import through
from edgedec.runtime.depth.plan import Measure, Plan, Planner, Signals


def look(*stages: int, measure: Measure = "softmax_diff") -> Plan:
    return Plan(through(stages), "look", "fill", measure=measure)


LEAVE = Plan((), "choose", "fill", wait=True)


def test_trace_of_a_batch() -> None:
    # threshold 0.8 without decay: tau = 0 gives 0.8 * (0.9 + 0.1) at every step
    planner = EarlyExit(threshold=0.8, tau=0).start(singles(3), request(2))
    assert planner.plan(1, NOTHING) == look(0)
    assert planner.plan(1, sure(0.9, 0.7)) == look(1)  # the least certain row decides
    assert planner.plan(1, sure(0.9, 0.81)) == LEAVE
    assert planner.plan(2, NOTHING) == look(0)
    assert planner.plan(2, sure(0.1, 0.1)) == look(1)
    assert planner.plan(2, sure(0.1, 0.1)) == Plan(through([2]), "choose", "fill")
    # a new step begins at the bottom whatever it is shown
    assert planner.plan(3, sure(1, 1)) == look(0)
    assert planner.plan(3, sure(0.9, 0.9)) == LEAVE


def test_threshold_falls_along_the_text() -> None:
    policy = EarlyExit(threshold=0.5, length=8)
    # 0.5 * (0.9 + 0.1 * exp(-4 t / 8)): t=0: 0.5; t=8: 0.45 + 0.05 * 0.0183 = 0.45092
    assert policy.threshold_at(0) == 0.5
    assert math.isclose(policy.threshold_at(8), 0.45091578, abs_tol=1e-8)
    # t=1: 0.45 + 0.05 * exp(-0.5) = 0.480327; t=6: 0.45 + 0.05 * exp(-3) = 0.452489
    for step, stays, leaves in ((1, 0.4803, 0.4804), (6, 0.4524, 0.4525)):
        for confidence, expected in ((stays, Plan(through([1]), behind="fill")), (leaves, LEAVE)):
            planner = policy.start(singles(2), request())
            planner.plan(step, NOTHING)
            assert planner.plan(step, sure(confidence)) == expected


def test_exits_can_be_chosen() -> None:
    # exits after 2 and 5 of 8 layers; the one after 2 is below min=3
    layout = of_cuts(8, [2, 5])
    planner = EarlyExit(exits=(2, 5), min=3).start(layout, request())
    assert planner.plan(1, NOTHING) == look(0, 1)
    assert planner.plan(1, sure(0.0)) == Plan(through([2]), behind="fill")
    # stages of a bundle that is cut everywhere
    planner = EarlyExit(exits=(2, 5)).start(singles(8), request())
    assert planner.plan(1, NOTHING) == look(0, 1)
    assert planner.plan(1, sure(0.0)) == look(2, 3, 4)
    assert planner.plan(1, sure(0.0)) == Plan(through([5, 6, 7]), behind="fill")


def test_state_never_leaves_at_the_first_exit() -> None:
    planner = EarlyExit(measure="state").start(singles(4), request())
    assert planner.plan(1, NOTHING) == look(0, 1, measure="state")
    assert planner.plan(1, sure(0.0)) == look(2, measure="state")
    with pytest.raises(InputError, match=r"there are 1 exits .* measure=state needs 2"):
        check(on_layout(EarlyExit(measure="state"), of_cuts(4, [2])), of_cuts(4, [2]))


def test_needs() -> None:
    needs = EarlyExit(measure="meta", exits=(2, 5)).needs(8)
    assert needs.cuts == {2, 5}
    assert needs.fill == set(range(2, 8))
    assert needs.meta
    assert EarlyExit(min=2).needs(4).cuts == {2, 3}  # at export: wherever it can be cut


@pytest.mark.parametrize("threshold", [1, 1.5])
def test_threshold_one_is_full_depth(threshold: float) -> None:
    bare = dataclasses.replace(of_cuts(4, []), fill=frozenset())
    for policy in (EarlyExit(threshold=threshold), Free(exit=2, threshold=threshold)):
        check(policy, bare)
        planner = policy.start(bare, request(3))
        assert [planner.plan(step, sure(1, 1, 1)) for step in (1, 2)] == [full(bare)] * 2


def runs(planner: Planner, step: int, seen: list[float]) -> list[int]:
    """Stages of a step; it must end, and every plan but the last must ask."""
    signals: Signals = NOTHING
    ran: list[int] = []
    for confidence in seen:
        plan = planner.plan(step, signals)
        ran += [p.stage for p in plan.passes]
        if plan.then == "choose":
            return ran
        assert plan.then == "look"
        signals = sure(confidence)
    raise AssertionError("the step never ended")


@given(st.data())
def test_steps_end_with_the_lowest_stages(data: st.DataObject) -> None:
    layers = data.draw(st.integers(2, 8))
    policy = EarlyExit(
        threshold=data.draw(st.floats(0, 0.99)), min=data.draw(st.integers(1, layers - 1))
    )
    layout = of_cuts(layers, sorted(policy.needs(layers).cuts))
    planner = on_layout(policy, layout).start(layout, request())
    for step in range(1, 6):
        seen = data.draw(st.lists(st.floats(0, 1), min_size=layers + 1, max_size=layers + 1))
        ran = runs(planner, step, seen)
        assert ran == list(range(len(ran)))
        least = policy.threshold_at(step)
        first = next((i for i, c in enumerate(seen) if c >= least + 1e-6), layers)
        assert len(ran) <= first + 1


def test_free_trace() -> None:
    planner = Free(exit=2, threshold=0.6).start(of_cuts(6, [2, 4]), request(2))
    shallow = Plan(through([0]), "look", measure="softmax_diff")
    assert planner.plan(1, NOTHING) == shallow
    assert planner.plan(1, sure(0.6001, 1)) == Plan((), "choose", "full", wait=True)
    assert planner.plan(2, NOTHING) == shallow
    # those that wait are taken along in full
    assert planner.plan(2, sure(0.6001, 0.5)) == Plan(through([1, 2]), "choose", "full")


def test_refusals() -> None:
    with pytest.raises(InputError, match="threshold=-1"):
        EarlyExit(threshold=-1)
    with pytest.raises(InputError, match="exits=8 does not fit a decoder of 8 layers"):
        EarlyExit(exits=(2, 8)).needs(8)
    with pytest.raises(InputError, match="there are 0 exits"):
        EarlyExit(exits=(2,), min=3).needs(8)
    with pytest.raises(InputError, match="exit=4 does not fit a decoder of 4 layers"):
        Free(exit=4).needs(4)
    with pytest.raises(InputError, match="measure=state compares"):
        Free(exit=4, measure="state")
    with pytest.raises(InputError, match="layer 1-3 of this bundle has no fill variant"):
        check(EarlyExit(), dataclasses.replace(singles(4), fill=frozenset()))
    with pytest.raises(InputError, match="no confidence classifier"):
        check(EarlyExit(measure="meta"), dataclasses.replace(singles(4), meta=False))
    with pytest.raises(InputError, match="must be cut before layer 2, and is cut before 3"):
        check(Free(exit=2), of_cuts(4, [3]))
    with pytest.raises(InputError, match="must be cut before layer 2, and is in one piece"):
        check(Free(exit=2), of_cuts(4, []))
