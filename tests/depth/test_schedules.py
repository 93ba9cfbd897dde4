"""SkipDecode, unified skipping and D3: depth by position alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.depth.layouts import NOTHING, full, of_cuts, request, singles, stages

from edgedec.errors import InputError
from edgedec.runtime.depth.d3 import D3
from edgedec.runtime.depth.options import check
from edgedec.runtime.depth.plan import Policy
from edgedec.runtime.depth.skipdecode import SkipDecode
from edgedec.runtime.depth.unified import Unified


def depths(policy: Policy, layers: int, steps: int, limit: int = 16) -> list[list[int]]:
    planner = policy.start(singles(layers), request(limit=limit))
    return [stages(planner.plan(step, NOTHING)) for step in range(1, steps + 1)]


def test_skipdecode_trace() -> None:
    # 8 layers, from 6 to 2 over 4 positions, 1 of warm-up: E = 6, 5, 4, 3, 2, 2;
    # layer 0 and the top E - 1.
    assert depths(SkipDecode(min=2, max=6, warmup=1, length=4), 8, 6) == [
        [0, 3, 4, 5, 6, 7],
        [0, 4, 5, 6, 7],
        [0, 5, 6, 7],
        [0, 6, 7],
        [0, 7],
        [0, 7],
    ]


def test_skipdecode_rounds_halves_up() -> None:
    # from 4 to 3 over 2 positions: 4, 3.5, 3
    found = depths(SkipDecode(min=3, max=4, warmup=2, length=2), 6, 3)
    assert found == [[0, 1, 4, 5], [0, 1, 4, 5], [0, 1, 5]]


def test_skipdecode_does_not_depend_on_the_batch_s_limit() -> None:
    policy = SkipDecode(min=2, max=5, length=3)  # 5, 4, 3, 2
    for limit in (1, 3, 100):
        assert [len(layers) for layers in depths(policy, 5, 4, limit=limit)] == [5, 4, 3, 2]


@given(st.data())
def test_skipdecode_is_nested_and_falls_from_max_to_min(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 12))
    most = data.draw(st.integers(1, layers))
    least = data.draw(st.integers(1, most))
    policy = SkipDecode(
        min=least,
        max=most,
        warmup=data.draw(st.integers(1, least)),
        length=data.draw(st.integers(1, 12)),
    )
    # exactly the cuts it asks for are enough
    layout = of_cuts(layers, sorted(policy.needs(layers).cuts))
    check(policy, layout)
    planner = policy.start(layout, request())
    before = set(range(layers))
    counts = []
    for step in range(1, 15):
        run = {
            layer
            for stage in stages(planner.plan(step, NOTHING))
            for layer in range(*layout.stages[stage])
        }
        assert run <= before
        assert set(range(policy.warmup)) <= run
        before = run
        counts.append(len(run))
    assert counts[0] == most
    assert counts[-1] == least


@given(st.integers(1, 12), st.integers(1, 12))
def test_skipdecode_of_all_layers_is_full_depth(layers: int, warmup: int) -> None:
    policy = SkipDecode(min=layers, max=layers, warmup=min(warmup, layers))
    layout = of_cuts(layers, [])
    check(policy, layout)  # on a bundle in one piece too
    assert policy.start(layout, request()).plan(5, NOTHING) == full(layout)
    assert policy.start(singles(layers), request()).plan(5, NOTHING) == full(singles(layers))


def test_unified_trace() -> None:
    # 4 of 8 layers, gaps of 7/3: 0, 2.33, 4.67, 7; 3 of 4: 0, 1.5 (up), 3
    assert depths(Unified(4), 8, 2) == [[0, 2, 5, 7]] * 2
    assert depths(Unified(3), 4, 1) == [[0, 2, 3]]


@given(st.data())
def test_unified_keeps_both_ends_and_spreads_the_rest(data: st.DataObject) -> None:
    layers = data.draw(st.integers(2, 40))
    policy = Unified(data.draw(st.integers(2, layers)))
    kept = policy.kept(layers)
    assert kept[0] == 0
    assert kept[-1] == layers - 1
    assert len(set(kept)) == policy.layers
    gaps = [b - a for a, b in pairwise(kept)]
    assert max(gaps) - min(gaps) <= 1
    layout = of_cuts(layers, sorted(policy.needs(layers).cuts))
    check(policy, layout)
    if policy.layers == layers:
        assert layout.stages == ((0, layers),)
        assert policy.start(layout, request()).plan(3, NOTHING) == full(layout)


def test_d3_trace() -> None:
    # 8 layers, 8 * 0.8 ** i for i = 0, 0 (begin=1), 1, ...: 8, 8, 6.4, 5.12, 4.096, 3.28, 2.62,
    # which is 3 at least; the last layer, and the first ones
    policy = D3(alpha=0.8, begin=1, min=3)
    assert depths(policy, 8, 7) == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, 3, 4, 7],
        [0, 1, 2, 3, 7],
        [0, 1, 2, 7],
        [0, 1, 7],
        [0, 1, 7],
    ]


@given(st.data())
def test_d3_is_nested_and_keeps_both_ends(data: st.DataObject) -> None:
    layers = data.draw(st.integers(2, 12))
    least = data.draw(st.integers(2, layers))
    last = data.draw(st.integers(1, least - 1))
    policy = D3(data.draw(st.floats(0, 1)), data.draw(st.integers(0, 4)), least, last)
    layout = of_cuts(layers, sorted(policy.needs(layers).cuts))
    check(policy, layout)
    planner = policy.start(layout, request())
    before = set(range(len(layout.stages)))
    for step in range(1, 12):
        run = set(stages(planner.plan(step, NOTHING)))
        assert run <= before
        assert {0, len(layout.stages) - 1} <= run
        before = run


def test_d3_without_decay_is_full_depth() -> None:
    layout = of_cuts(6, [])
    check(D3(alpha=1), layout)
    assert D3(alpha=1).start(layout, request()).plan(99, NOTHING) == full(layout)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SkipDecode(min=3, max=2), "must not fall"),
        (lambda: SkipDecode(min=1, max=4, warmup=2), "must not fall"),
        (lambda: SkipDecode(min=1, max=4, warmup=0), "warmup=0 is out of range: give at least 1"),
        (lambda: SkipDecode(min=1, max=4, length=0), "length=0"),
        (lambda: SkipDecode(min=1, max=9).needs(8), "max=9, but the decoder has 8 layers"),
        (lambda: Unified(1), "layers=1"),
        (lambda: Unified(9).needs(8), "layers=9, but the decoder has 8"),
        (lambda: D3(alpha=1.5), "alpha=1.5 is out of range: give 0 to 1"),
        (lambda: D3(alpha=float("nan")), "alpha=nan"),
        (lambda: D3(min=2, last=2), "leave none before the last=2"),
        (lambda: D3(min=9).needs(8), "min=9, but the decoder has 8 layers"),
    ],
)
def test_refusals(make: object, says: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=says):
        make()
