"""FiRST: which layers the routers' scores leave to each row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.layouts import NOTHING, full, of_cuts, request, singles

from edgedec.errors import InputError
from edgedec.runtime.depth.first import First
from edgedec.runtime.depth.options import check
from edgedec.runtime.depth.plan import Pass, Plan, Signals


def scores(*rows: list[float]) -> Signals:
    return Signals(routers=np.array(rows, np.float32))


def test_trace_of_two_rows() -> None:
    planner = First(threshold=0.5).start(singles(5), request(2))
    # layers 0 and 4 are protected; 1 runs for both, 2 for the first row, 3 for none
    expected = Plan((Pass(0), Pass(1), Pass(2, rows=(True, False)), Pass(4)))
    seen = scores([0.1, 0.5, 0.9, 0.2, 0.1], [0.9, 0.8, 0.49, 0.4, 0.0])
    assert planner.plan(1, seen) == expected
    assert planner.plan(2, NOTHING) == expected  # fixed for the whole text


def test_trace_of_a_budget() -> None:
    # 6 layers, 0 and 5 protected: 2 more; of equal scores the lower layer
    planner = First(layers=4).start(singles(6), request(2))
    seen = scores([0, 0.1, 0.3, 0.3, 0.3, 0], [0, 0.9, 0.1, 0.2, 0.8, 0])
    assert planner.plan(1, seen) == Plan(
        (
            Pass(0),
            Pass(1, rows=(False, True)),
            Pass(2, rows=(True, False)),
            Pass(3, rows=(True, False)),
            Pass(4, rows=(False, True)),
            Pass(5),
        )
    )


def test_layers_without_a_router_always_run() -> None:
    layout = dataclasses.replace(singles(5), routers=frozenset([2]))
    check(First(), layout)
    seen = scores([1, 1, 0, 1, 1])
    kept = First().start(layout, request()).plan(1, seen)
    assert [p.stage for p in kept.passes] == [0, 1, 3, 4]
    # a budget counts them
    assert len(First(layers=4).start(layout, request()).plan(1, seen).passes) == 4
    with pytest.raises(InputError, match="no routers"):
        check(First(), dataclasses.replace(layout, routers=frozenset()))


@given(st.data())
def test_masks_keep_protected_layers_and_the_budget(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 9))
    rows = data.draw(st.integers(1, 4))
    protect = data.draw(st.integers(0, 3))
    always = layers - len(First(protect=protect).skippable(layers))
    budget = data.draw(st.none() | st.integers(max(1, always), layers))
    threshold = data.draw(st.floats(0, 1, width=32))
    policy = First(threshold, budget, protect)
    one = st.lists(st.floats(0, 1, width=32), min_size=layers, max_size=layers)
    seen = np.array(data.draw(st.lists(one, min_size=rows, max_size=rows)), np.float32)
    mask = policy.mask(seen, frozenset(range(layers)))
    assert mask[:, 0].all()
    assert mask[:, :protect].all()
    assert mask[:, layers - protect :].all()
    if budget is not None:
        assert (mask.sum(axis=1) == budget).all()
    else:
        free = list(policy.skippable(layers))
        assert (mask[:, free] == (seen[:, free] >= np.float32(threshold))).all()
    layout = of_cuts(layers, sorted(policy.needs(layers).cuts))
    check(policy, layout)
    plan = policy.start(layout, request(rows)).plan(1, Signals(routers=seen))
    for p in plan.passes:
        assert p.variant == "full"
        assert p.rows is None or (any(p.rows) and not all(p.rows) and len(p.rows) == rows)


@pytest.mark.parametrize("policy", [First(threshold=0), First(layers=6)])
def test_neutral_settings_are_full_depth(policy: First) -> None:
    layout = dataclasses.replace(of_cuts(6, []), routers=frozenset())
    check(policy, layout)
    assert policy.start(layout, request()).plan(1, NOTHING) == full(layout)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (First(layers=9), "layers=9 cannot be: the decoder has 6 layers"),
        (First(layers=3, protect=2), "protect=2 always runs 4"),
    ],
)
def test_impossible_budgets(policy: First, says: str) -> None:
    with pytest.raises(InputError, match=says):
        policy.needs(6)


def test_threshold_is_a_probability() -> None:
    with pytest.raises(InputError, match="threshold=2 is out of range: give 0 to 1"):
        First(threshold=2)
