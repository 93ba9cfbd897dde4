"""Policies from text: what is read, what is written, what is refused and how."""

from __future__ import annotations

import dataclasses
import importlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.errors import EdgedecError, InputError
from edgedec.runtime.depth.d3 import D3
from edgedec.runtime.depth.del_ import Del
from edgedec.runtime.depth.early_exit import EarlyExit
from edgedec.runtime.depth.first import First
from edgedec.runtime.depth.free import Free
from edgedec.runtime.depth.full import Full
from edgedec.runtime.depth.layerskip import LayerSkip
from edgedec.runtime.depth.lora_drop import LoraDrop
from edgedec.runtime.depth.ngram import Ngram
from edgedec.runtime.depth.options import (
    POLICIES,
    describe,
    layout_of,
    make_policy,
    parse_depth,
    policy_class,
    policy_from,
)
from edgedec.runtime.depth.plan import Policy
from edgedec.runtime.depth.skipdecode import SkipDecode
from edgedec.runtime.depth.unified import Unified
from edgedec.runtime.generation import GenerationConfig
from edgedec.runtime.manifest import (
    Component,
    DepthPoint,
    DepthTable,
    Interface,
    Manifest,
    Source,
    Stage,
)


def manifest(
    cuts: list[int],
    layers: int = 8,
    variants: dict[int, dict[str, str]] | None = None,
    **changes: Any,
) -> Manifest:
    """A bundle's description, as far as policies look at it."""
    borders = [0, *cuts, layers]
    stages = tuple(
        Stage(f"decoder.{a}-{b}", a, b, (variants or {}).get(a, {})) for a, b in pairwise(borders)
    )
    whole = Manifest(
        schema_version=1,
        producer="test",
        source=Source("test", None, ""),
        model={},
        interface=Interface("decoder-only", 10, 4, layers, 4, None, None),
        components={"head": Component("head.onnx", "cpu", "fp32")},
        encoder=None,
        stages=stages,
        head="head" if cuts else None,
        generation=GenerationConfig(),
        parameters=1,
        verified=None,
        files={},
    )
    return dataclasses.replace(whole, **changes)


EVERYWHERE = manifest(list(range(1, 8)))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("full", Full()),
        (" skipdecode : min=2, max=8 ", SkipDecode(min=2, max=8)),
        (
            "skipdecode:warmup=1,min=4,max=8,length=64",
            SkipDecode(min=4, max=8, warmup=1, length=64),
        ),
        ("unified:layers=4", Unified(4)),
        ("d3:alpha=.9,begin=3", D3(0.9, 3)),
        ("first:layers=6", First(layers=6)),
        ("first:threshold=1e-1", First(0.1)),
        ("lora-drop:cycle=3,layers=1-3,5", LoraDrop(3, (1, 2, 3, 5))),
        ("lora-drop:layers=5, 1-2,2,cycle=3", LoraDrop(3, (1, 2, 5))),
        ("early-exit:measure=meta,threshold=0.9,min=1", EarlyExit("meta")),
        ("early-exit:exits=2,4,tau=2", EarlyExit(tau=2, exits=(2, 4))),
        ("free:exit=2,threshold=0.5", Free(2, threshold=0.5)),
        ("layerskip:exit=2,drafts=6", LayerSkip(2, 6)),
        ("del:max=9", Del(9)),
        ("ngram:drafts=3", Ngram(drafts=3)),
    ],
)
def test_texts(text: str, policy: Policy) -> None:
    found = policy_from(*parse_depth(text))
    assert found == policy
    assert type(found) is type(policy)
    assert policy_from(*parse_depth(describe(found))) == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fast", r"--depth 'fast': there is no such policy; there are: full, early-exit, .*auto"),
        ("", "there is no such policy"),
        ("full:deep=1", "there is no parameter 'deep'; full takes none"),
        ("unified:size=1", "there is no parameter 'size'; unified has layers"),
        ("unified:layers=4,layers=4", "layers is given twice"),
        ("unified:layers", "'layers' is no parameter: write unified:key=value"),
        ("unified:", "'' is no parameter"),
        ("unified", "needs layers: write unified:layers=..."),
        ("skipdecode:warmup=1", "needs min and max: write skipdecode:min=...,max=..."),
        ("unified:layers=4.5", "layers=4.5 cannot be read: give a whole number"),
        ("unified:layers=-4", "layers=-4 cannot be read"),
        ("unified:layers=" + "9" * 5000, "cannot be read"),
        ("first:threshold=high", "threshold=high cannot be read: give a number"),
        ("early-exit:measure=luck", "give one of softmax_diff, softmax_max, state, meta"),
        ("lora-drop:layers=3-1", "layers=3-1 cannot be read: give layers such as 1-3,5"),
        ("lora-drop:layers=1-99999999", "cannot be read"),
        ("lora-drop:layers=a", "cannot be read"),
    ],
)
def test_texts_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        policy_from(*parse_depth(text))


NAMES = st.sampled_from(["", "lora-drop:", "lora-drop:layers=", "first:", "d3:alpha=", "auto:"])


@given(
    st.builds(
        "{}{}".format,
        NAMES,
        st.text(alphabet="alpyers:=,-.0129 \n", max_size=12) | st.text(max_size=9),
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        policy = make_policy(text, EVERYWHERE)
    except InputError:
        return
    assert policy_from(*parse_depth(describe(policy))) == policy


@given(
    st.sampled_from(sorted(POLICIES)),
    st.dictionaries(
        st.sampled_from(["layers", "threshold", "exit", "exits", "min", "max", "measure"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers(-2, 9), max_size=4)
        | st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
    ),
)
def test_any_json_is_read_or_refused(name: str, parameters: dict[str, Any]) -> None:
    try:
        policy = policy_from(name, parameters)
        policy.needs(8)
    except InputError:
        return
    assert policy_from(*parse_depth(describe(policy))) == policy


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "Full": st.just(Full()),
    "SkipDecode": st.builds(
        lambda w, a, b, length: SkipDecode(w + a + b, w + a + b + a, w, length),
        st.integers(1, 3),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(1, 99),
    ),
    "Unified": st.builds(Unified, st.integers(2, 40)),
    "D3": st.builds(D3, st.floats(0, 1), st.integers(0, 9), st.integers(3, 9), st.integers(1, 2)),
    "First": st.builds(
        First, st.floats(0, 1), st.none() | st.integers(1, 9), protect=st.integers(0, 9)
    ),
    "LoraDrop": st.builds(
        LoraDrop, st.integers(1, 9), st.sets(st.integers(1, 20)).map(sorted).map(tuple)
    ),
    "EarlyExit": st.builds(
        EarlyExit,
        st.sampled_from(["softmax_diff", "softmax_max", "state", "meta"]),
        st.floats(0, 2),
        st.floats(0, 9),
        st.integers(1, 99),
        st.integers(1, 9),
        st.sets(st.integers(1, 20)).map(sorted).map(tuple),
    ),
    "Free": st.builds(
        Free, st.integers(1, 9), st.sampled_from(["softmax_max", "meta"]), st.floats(0, 2)
    ),
    "LayerSkip": st.builds(LayerSkip, st.integers(1, 9), st.integers(1, 64)),
    "Del": st.builds(Del, st.integers(1, 64), st.floats(0, 1), st.integers(1, 99)),
    "Ngram": st.builds(Ngram, st.integers(3, 9), st.integers(1, 64), st.integers(1, 2)),
}


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(data=st.data())
def test_what_is_written_is_read_again(name: str, data: st.DataObject) -> None:
    policy: Policy = data.draw(VALUES[policy_class(name).__name__])
    assert policy.name == name
    assert policy_from(*parse_depth(describe(policy))) == policy


def test_defaults_are_not_written() -> None:
    assert describe(Full()) == "full"
    assert describe(EarlyExit()) == "early-exit"
    assert describe(LoraDrop(3, (1, 2, 3, 5))) == "lora-drop:cycle=3,layers=1-3,5"


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_policies_follow_the_protocol(name: str) -> None:
    kind = policy_class(name)
    module = importlib.import_module(kind.__module__)
    assert module.__name__.startswith("edgedec.runtime.depth.")
    assert kind.name == name
    assert kind.one_row == (name in {"layerskip", "del", "ngram"})
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        assert f"{field.name}:" in (kind.__doc__ or "").replace(",", ":")


def test_defaults_of_the_bundle() -> None:
    recorded: dict[str, dict[str, Any]] = {
        "first": {"threshold": 0.25},
        "lora-drop": {"cycle": 2, "layers": [2, 1]},
        "unified": {"depth": 3},
    }
    offered = {1: {"low-rank": "decoder.1-3.low-rank"}}
    bundle = manifest([1, 3, 4, 5, 6, 7], variants=offered, policies=recorded, routed=(1, 3))
    assert make_policy("lora-drop", bundle) == LoraDrop(2, (1, 2))
    assert make_policy("lora-drop:cycle=3", bundle) == LoraDrop(3, (1, 2))
    with pytest.raises(InputError, match="no parameter 'depth'"):
        make_policy("unified:layers=2", bundle)
    with pytest.raises(InputError, match="must be cut before layer 2, and is cut before 1,3-7"):
        make_policy("first", bundle)
    whole = dataclasses.replace(EVERYWHERE, policies=recorded, routed=(1, 3))
    assert make_policy("first", whole) == First(0.25)


def test_layout_of_a_bundle() -> None:
    offered = {0: {"fill": "a"}, 2: {"fill": "b", "low-rank": "c"}}
    layout = layout_of(manifest([2, 5], variants=offered, routed=(3,), meta="head"))
    assert layout.stages == ((0, 2), (2, 5), (5, 8))
    assert layout.fill == {0, 1}
    assert layout.low_rank == {1}
    assert layout.routers == {3}
    assert layout.meta


def test_exits_are_the_bundle_s() -> None:
    fills = {a: {"fill": f"fill-{a}"} for a in (2, 5)}
    bundle = manifest([2, 5], variants=fills)
    assert make_policy("early-exit", bundle) == EarlyExit(exits=(2, 5))
    assert make_policy("del", bundle) == Del(exits=(2, 5))
    recorded = dataclasses.replace(bundle, policies={"early-exit": {"exits": [5]}})
    assert make_policy("early-exit", recorded) == EarlyExit(exits=(5,))


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"full", "ngram"}))
def test_one_stage_is_not_enough(name: str) -> None:
    required = {
        "skipdecode": ":min=2,max=7",
        "unified": ":layers=4",
        "free": ":exit=2",
        "layerskip": ":exit=2",
    }
    with pytest.raises(InputError, match=r"cut|too few|no low-rank|no routers"):
        make_policy(name + required.get(name, ""), manifest([]))


def test_full_and_ngram_need_nothing() -> None:
    assert make_policy("full", manifest([])) == Full()
    assert make_policy("ngram", manifest([])) == Ngram()


def table(*points: tuple[str, float, float]) -> Manifest:
    rows = tuple(DepthPoint(text, quality, 4, ms, 1) for text, quality, ms in points)
    return dataclasses.replace(EVERYWHERE, depth=DepthTable("t", 9, "agreement", "cpu", 1, rows))


def test_auto_is_the_fastest_that_is_good_enough() -> None:
    bundle = table(("unified:layers=3", 0.7, 1), ("unified:layers=6", 0.99, 2), ("full", 1, 4))
    assert make_policy("auto:quality=0.7", bundle) == Unified(3)
    assert make_policy("auto:quality=0.71", bundle) == Unified(6)
    assert make_policy("auto", bundle) == Unified(6)
    assert make_policy("auto:quality=1", bundle) == Full()


@pytest.mark.parametrize(
    ("text", "bundle", "says"),
    [
        ("auto", EVERYWHERE, "no depth table: run edgedec calibrate-depth"),
        ("auto:quality=0.9", table(("full", 0.8, 1)), "reaches quality=0.9, the best has 0.8"),
        ("auto:quality=0.9", table(), "the best has 0"),
        ("auto:quality=0", EVERYWHERE, "quality=0 is out of range"),
        ("auto:quality=nan", EVERYWHERE, "quality=nan cannot be read: give a number"),
        ("auto:speed=2", EVERYWHERE, "no parameter 'speed'; auto has quality"),
        ("auto", table(("auto", 1, 1)), "names no policy"),
        ("auto", table(("layerskip:exit=9", 1, 1)), "exit=9 does not fit"),
    ],
)
def test_auto_refusals(text: str, bundle: Manifest, says: str) -> None:
    with pytest.raises(EdgedecError, match=says):
        make_policy(text, bundle)
