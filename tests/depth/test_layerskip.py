"""LayerSkip: drafts from the exit, verification from where they stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.layouts import NOTHING, of_cuts, request

from edgedec.errors import InputError
from edgedec.runtime.depth.layerskip import LayerSkip
from edgedec.runtime.depth.passes import through
from edgedec.runtime.depth.plan import Plan, Signals

DRAFT = Plan(through([0]), "draft", wait=True)
VERIFY = Plan(through([0, 1]), "verify")


def test_trace() -> None:
    planner = LayerSkip(exit=2, drafts=2).start(of_cuts(6, [2]), request())
    assert planner.plan(1, NOTHING) == DRAFT
    assert planner.plan(1, Signals(token=5)) == DRAFT
    # the second draft runs with the upper stage's verification
    assert planner.plan(1, Signals(token=6)) == VERIFY
    assert planner.plan(2, Signals(tokens=(5, 7), drafted=2, accepted=1)) == DRAFT
    # nothing may follow the draft: it is compared, but not run
    assert planner.plan(2, Signals(token=1, ended=True)) == Plan(through([1]), "verify")
    assert planner.plan(3, Signals(tokens=(1,), drafted=1, accepted=1)) == DRAFT


@given(st.integers(1, 8), st.lists(st.booleans(), min_size=40, max_size=40))
def test_rounds_end(drafts: int, ends: list[bool]) -> None:
    planner = LayerSkip(exit=1, drafts=drafts).start(of_cuts(3, [1]), request())
    for step in range(1, 4):
        signals = NOTHING
        for count in range(drafts + 1):
            plan = planner.plan(step, signals)
            if plan.then == "verify":
                assert count == drafts or signals.ended
                break
            assert plan == DRAFT
            signals = Signals(token=3, ended=ends[step * 8 + count])
        else:
            raise AssertionError("too many drafts")


def test_refusals() -> None:
    with pytest.raises(InputError, match="drafts=0"):
        LayerSkip(exit=1, drafts=0)
    with pytest.raises(InputError, match="exit=6 does not fit a decoder of 6 layers: give 1 to 5"):
        LayerSkip(exit=6).needs(6)
    with pytest.raises(InputError, match="a decoder of 1 layers: it has too few"):
        LayerSkip(exit=1).needs(1)
