"""LoRA-Drop: refreshes and corrections in turns."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.layouts import NOTHING, full, of_cuts, request, singles

from edgedec.errors import InputError
from edgedec.runtime.depth.lora_drop import LoraDrop
from edgedec.runtime.depth.options import check
from edgedec.runtime.depth.plan import Pass, Plan


def test_trace() -> None:
    # Cut before 1, 4, 5, 8 as the released rule wants: 1-3 and 5-7 are dropped. The prompt was
    # refresh 0, so step 3 is the next of cycle 3.
    layout = of_cuts(8, sorted(LoraDrop().needs(8).cuts))
    assert layout.stages == ((0, 1), (1, 4), (4, 5), (5, 8))
    planner = LoraDrop(cycle=3).start(layout, request())
    between = Plan((Pass(0), Pass(1, "low-rank"), Pass(2), Pass(3, "low-rank")))
    all_layers = full(layout)
    found = [planner.plan(step, NOTHING) for step in range(1, 8)]
    assert found == [between, between, all_layers, between, between, all_layers, between]


@given(st.data())
def test_only_droppable_layers_are_corrected(data: st.DataObject) -> None:
    layers = data.draw(st.integers(2, 12))
    droppable = data.draw(st.sets(st.integers(1, layers - 1), min_size=1))
    policy = LoraDrop(data.draw(st.integers(2, 6)), tuple(sorted(droppable)))
    needs = policy.needs(layers)
    assert needs.low_rank == droppable
    layout = of_cuts(layers, sorted(needs.cuts))
    check(policy, layout)
    planner = policy.start(layout, request())
    for step in range(1, 14):
        plan = planner.plan(step, NOTHING)
        assert [p.stage for p in plan.passes] == list(range(len(layout.stages)))
        corrected = {
            layer
            for p in plan.passes
            if p.variant == "low-rank"
            for layer in range(*layout.stages[p.stage])
        }
        assert corrected == (droppable if step % policy.cycle else set())


def test_refreshing_always_is_full_depth() -> None:
    layout = dataclasses.replace(of_cuts(6, []), low_rank=frozenset())
    check(LoraDrop(cycle=1), layout)
    planner = LoraDrop(cycle=1).start(layout, request())
    assert [planner.plan(step, NOTHING) for step in (1, 2, 3)] == [full(layout)] * 3


def test_refusals() -> None:
    with pytest.raises(InputError, match="layer 0 always runs"):
        LoraDrop(layers=(0, 1))
    with pytest.raises(InputError, match="cycle=0"):
        LoraDrop(cycle=0)
    with pytest.raises(InputError, match="layers=6 does not fit a decoder of 6 layers"):
        LoraDrop(layers=(6,)).needs(6)
    with pytest.raises(InputError, match="no low-rank variant"):
        check(LoraDrop(), dataclasses.replace(singles(6), low_rank=frozenset()))
