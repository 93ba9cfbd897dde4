"""The loop carries out plans: whatever waits, is drafted or moved, results are as they must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.depth.models import CUTS, EVERYTHING, LAYERS, VOCAB, make

from edgedec.errors import InputError
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.depth.confidence import softmax_diff, softmax_max
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.plan import Pass, Plan, Planner, Request, Signals
from edgedec.runtime.generator import Generator

STAGES = len(CUTS)
ALL = tuple(Pass(stage) for stage in range(STAGES))
FULL = Plan(ALL)
TOLERANCE = 2e-5
"""Of logits around 1: sums of another order, as products of several positions have."""
SOURCES = [[3, 5, 8, 13], [21, 34], [4, 7, 11, 18, 29]]


def bundle(kind: str, folder: Path) -> Bundle:
    """A model without a limit that these tests reach."""
    made = make(kind, folder).bundle
    io = replace(made.manifest.interface, max_source=None, max_target=None)
    generation = made.manifest.generation.override(decoder_start_token_id=0)
    return Bundle(folder, replace(made.manifest, interface=io, generation=generation))


@pytest.fixture(scope="module", params=["t5", "qwen"])
def generator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator:
    """An encoder-decoder with relative, and a decoder-only model with rotary positions."""
    kind = request.param
    return Generator(bundle(kind, tmp_path_factory.mktemp("loop") / kind), threads=1)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(bundle("qwen", tmp_path_factory.mktemp("loop") / "qwen"), threads=1)


def start(
    generator: Generator, rows: int, *, same: bool = False, anchors: bool = False
) -> Decoding:
    """Begin; rows can change places only if they have the same source, as beams do."""
    encodes = generator.bundle.manifest.encoder is not None
    sources = [SOURCES[0]] * rows if same else SOURCES[:rows]
    decoding = generator.start_decoding(sources if encodes else None, rows, anchors=anchors)
    assert isinstance(decoding, Decoding)
    return decoding


Script = Callable[[int, Signals], Plan]


@dataclass(frozen=True)
class Scripted:
    """A policy that plans what a test says, and a planner that keeps what it saw."""

    name: ClassVar[str] = "scripted"
    one_row: ClassVar[bool] = False

    script: Script
    need: Needs = field(default_factory=Needs)
    seen: list[Signals] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def needs(self, layers: int) -> Needs:
        return self.need

    def start(self, layout: Layout, request: Request) -> Planner:
        self.requests.append(request)
        return self

    def plan(self, step: int, signals: Signals) -> Plan:
        self.seen.append(signals)
        return self.script(step, signals)


class OneRow(Scripted):
    """One that decodes inputs one at a time."""

    one_row: ClassVar[bool] = True


def one_after_another(plans: Sequence[Plan]) -> Script:
    """These plans, then full depth."""
    left: Iterator[Plan] = iter(plans)
    return lambda _step, _signals: next(left, FULL)


def same_caches(one: Decoding, other: Decoding) -> None:
    np.testing.assert_array_equal(one.cache.lengths, other.cache.lengths)
    for layer in range(LAYERS):
        for row, length in enumerate(one.cache.lengths[layer]):
            views = (decoding.cache.view(layer, length) for decoding in (one, other))
            for a, b in zip(*views, strict=True):
                np.testing.assert_allclose(a[row], b[row], atol=TOLERANCE)


DEPTHS = st.integers(1, STAGES)
MOVES = st.sampled_from(["none", "none", "reorder", "end", "fork"])
BORDERS = st.sampled_from([1, 2, 61, 62, 63, 64, 125, 126, 127])


@settings(max_examples=20)
@given(
    rows=st.integers(1, 3),
    prompt=BORDERS,
    steps=st.lists(st.tuples(DEPTHS, st.integers(1, 3), MOVES), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_what_waits_arrives(
    generator: Generator, rows: int, prompt: int, steps: list[tuple[int, int, str]], seed: int
) -> None:
    """Positions that wait at any depth, and then run in full, are as if they never had waited."""
    rng = np.random.default_rng(seed)
    waiting, plain = start(generator, rows, same=True), start(generator, rows, same=True)
    first = rng.integers(2, VOCAB, (rows, prompt))
    counts = rng.integers(1, prompt + 1, rows)
    waiting.step(first, counts=counts)
    plain.step(first, counts=counts)
    live = np.ones(rows, np.int64)
    for depth, new, move in [*steps, (STAGES, 1, "none")]:
        tokens = rng.integers(2, VOCAB, (rows, new))
        here = None if live.all() else live * new
        expected = plain.step(tokens, counts=here, want_logits=True)
        waiting.feed(tokens, here)
        for stage in range(depth):
            waiting.run(stage, behind="full")
        if depth == STAGES:
            found = waiting.read(want_logits=True).last
            assert found.logits is not None
            assert expected.logits is not None
            on = live > 0
            np.testing.assert_allclose(found.logits[on], expected.logits[on], atol=TOLERANCE)
        waiting.wait()
        if move == "reorder":
            parents = rng.integers(0, rows, rows)
            live = live[parents]
            waiting.reorder(parents)
            plain.reorder(parents)
        elif move == "end" and live.sum() > 1:
            live[rng.choice(np.flatnonzero(live))] = 0
        elif move == "fork" and rows < 3:
            waiting.fork(2)
            plain.fork(2)
            rows, live = rows * 2, np.repeat(live, 2)
    same_caches(waiting, plain)


@settings(max_examples=20)
@given(
    prompt=BORDERS,
    rounds=st.lists(
        st.tuples(st.lists(DEPTHS, min_size=1, max_size=5), st.integers(0, 5)), max_size=6
    ),
    seed=st.integers(0, 99),
)
def test_what_is_cropped_leaves_no_trace(
    generator: Generator, prompt: int, rounds: list[tuple[list[int], int]], seed: int
) -> None:
    """Positions of any depth that are forgotten again, in caches and where they wait."""
    rng = np.random.default_rng(seed)
    drafting, plain = start(generator, 1), start(generator, 1)
    first = rng.integers(2, VOCAB, (1, prompt))
    drafting.step(first)
    plain.step(first)
    length = prompt
    for depths, kept in rounds:
        tokens = rng.integers(2, VOCAB, (1, len(depths)))
        for token, depth in zip(tokens[0], depths, strict=True):
            drafting.feed(token.reshape(1, 1))
            for stage in range(depth):
                drafting.run(stage)
            drafting.wait()
        length += min(kept, len(depths))
        drafting.crop(length)
        if kept:
            plain.step(tokens[:, :kept])
    last = rng.integers(2, VOCAB, (1, 1))
    found = drafting.step(last, want_logits=True).logits
    expected = plain.step(last, want_logits=True).logits
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    same_caches(drafting, plain)


@settings(max_examples=15)
@given(
    rows=st.integers(1, 3),
    prompt=st.sampled_from([1, 61, 63]),
    exits=st.lists(DEPTHS, min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_keys_and_values_can_come_later(
    generator: Generator, rows: int, prompt: int, exits: list[int], seed: int
) -> None:
    """Filling the caches of an exit's upper layers when they are needed is as good as at once."""
    rng = np.random.default_rng(seed)
    later, at_once = start(generator, rows), start(generator, rows)
    first = rng.integers(2, VOCAB, (rows, prompt))
    for decoding in (later, at_once):
        decoding.step(first)
    for depth in [*exits, STAGES]:
        token = rng.integers(2, VOCAB, (rows, 1))
        for decoding in (later, at_once):
            decoding.feed(token)
            for stage in range(depth):
                decoding.run(stage, behind="fill")
        ours, theirs = later.read(want_logits=True), at_once.read(want_logits=True)
        assert ours.logits is not None
        assert theirs.logits is not None
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=TOLERANCE)
        later.wait()
        for stage in range(depth, STAGES):
            at_once.run(stage, "fill")
    same_caches(later, at_once)


@settings(max_examples=15)
@given(
    steps=st.lists(
        st.lists(st.tuples(st.booleans(), st.booleans()), min_size=STAGES, max_size=STAGES),
        max_size=5,
    ),
    seed=st.integers(0, 99),
)
def test_rows_that_skip_stages(
    generator: Generator, steps: list[list[tuple[bool, bool]]], seed: int
) -> None:
    """Rows of a batch that skip different stages go the ways that they would go alone."""
    rng = np.random.default_rng(seed)
    together = start(generator, 2)
    encodes = generator.bundle.manifest.encoder is not None
    sources = [[s] if encodes else None for s in SOURCES[:2]]
    alone = [cast("Decoding", generator.start_decoding(s, 1)) for s in sources]
    prompt = rng.integers(2, VOCAB, (2, 5))
    together.step(prompt)
    for row, decoding in enumerate(alone):
        decoding.step(prompt[row : row + 1])
    for masks in steps:
        tokens = rng.integers(2, VOCAB, (2, 1))
        together.feed(tokens)
        together.run(0)
        for stage in range(1, STAGES):
            together.run(stage, rows=masks[stage])
        logits = together.read(want_logits=True).logits
        assert logits is not None
        for row, decoding in enumerate(alone):
            decoding.feed(tokens[row : row + 1])
            decoding.run(0)
            for stage in range(1, STAGES):
                if masks[stage][row]:
                    decoding.run(stage)
            mine = decoding.read(want_logits=True).logits
            assert mine is not None
            np.testing.assert_allclose(logits[row], mine[0], atol=TOLERANCE)
            np.testing.assert_array_equal(
                together.cache.lengths[:, row], decoding.cache.lengths[:, 0]
            )


@settings(max_examples=15)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_anchors_follow_their_rows(
    generator: Generator, steps: list[tuple[bool, bool]], seed: int
) -> None:
    """Low-rank steps of a batch, of which rows end and change places, are those of each alone."""
    rng = np.random.default_rng(seed)
    together = start(generator, 3, same=True, anchors=True)
    alone = [start(generator, 1, same=True, anchors=True) for _ in range(3)]
    prompt, counts = rng.integers(2, VOCAB, (3, 6)), np.array([6, 2, 4])
    together.step(prompt, counts=counts)
    for row, decoding in enumerate(alone):
        decoding.step(prompt[row : row + 1, : counts[row]])
    owner = [0, 1, 2]
    for refresh, swap in steps:
        tokens = rng.integers(2, VOCAB, (3, 1))
        moving = zip((alone[o] for o in owner), tokens[:, None], strict=True)
        for decoding, fed in ((together, tokens), *moving):
            decoding.feed(fed)
            decoding.run(0)
            for stage in range(1, STAGES):
                decoding.run(stage, "full" if refresh else "low-rank")
        logits = together.read(want_logits=True).logits
        assert logits is not None
        for row, o in enumerate(owner):
            mine = alone[o].read(want_logits=True).logits
            assert mine is not None
            np.testing.assert_allclose(logits[row], mine[0], atol=TOLERANCE)
        if swap:
            together.reorder(np.array([1, 2, 0]))
            owner = [owner[1], owner[2], owner[0]]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.3, "seed": 5},
    {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "seed": 6},
    {"repetition_penalty": 1.7, "eos_token_ids": [2, 9, 17]},
    {"eos_token_ids": list(range(2, 9))},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "temperature": 1.0, "seed": 7},
    {"min_new_tokens": 9, "forced_eos_token_id": 1, "eos_token_ids": list(range(1, 20))},
]


@settings(max_examples=25)
@given(data=st.data(), options=st.sampled_from(OPTIONS), limit=st.integers(1, 24))
def test_drafts_change_nothing(
    generator: Generator, data: st.DataObject, options: dict[str, Any], limit: int
) -> None:
    """Right ones, wrong ones, and those of any exit: the text is that of full depth."""
    prompt = [7, 3, 9, 5] * data.draw(st.sampled_from([1, 14, 15, 31]))
    options = {"max_new_tokens": limit, **options}
    if limit < options.get("min_new_tokens", 0):
        return
    expected = generator.generate(prompt, **options)[0].tokens

    class Drafter:
        """Continues the text rightly, or with errors."""

        def __init__(self) -> None:
            self.done = 1
            self.step = 0

        def __call__(self, step: int, signals: Signals) -> Plan:
            if step != self.step:
                self.done += len(signals.tokens) * (self.step > 0)
                self.step = step
                assert list(signals.tokens) == expected[self.done - len(signals.tokens) : self.done]
                if self.done > 1:
                    assert signals.accepted <= signals.drafted
                self.self_drafts = data.draw(st.integers(0, 3))
                self.shadow = (0, 1) if data.draw(st.booleans()) else ()
            if signals.token is None or step != self.step:
                self.at = data.draw(st.integers(1, STAGES - 1))
            if self.self_drafts and not signals.ended:
                self.self_drafts -= 1
                return Plan(
                    ALL[: self.at], "draft", wait=True, measure="softmax_max", shadow=self.shadow
                )
            if signals.ended:
                return Plan(ALL[self.at :], "verify")
            if signals.token is not None:
                return Plan(ALL, "verify", shadow=self.shadow)
            size = data.draw(st.integers(0, 6))
            right = data.draw(st.integers(0, size))
            drafts = [*expected[self.done : self.done + right], *range(5, 5 + size)][:size]
            return Plan(ALL, "verify", draft=tuple(drafts))

    policy = OneRow(Drafter())
    assert generator.generate(prompt, depth=policy, **options)[0].tokens == expected
    statistics = generator.statistics
    assert statistics.tokens == len(expected) - 1 == sum(statistics.exits.values())
    assert statistics.accepted <= statistics.drafted
    chunks = [c.token for c in generator.stream(prompt, depth=OneRow(Drafter()), **options)]
    assert chunks == expected


def test_what_verification_tells(qwen: Generator) -> None:
    """Two right drafts, one wrong: three tokens, the third of the search's own."""
    prompt: list[int] = [7, 3, 9, 5]
    options: dict[str, Any] = {"max_new_tokens": 12}
    expected = qwen.generate(prompt, **options)[0].tokens
    wrong = (expected[3] + 1) % VOCAB
    policy = OneRow(
        one_after_another(
            [Plan(ALL, "verify", draft=(*expected[1:3], wrong, 4), shadow=(0, STAGES - 1)), FULL]
        )
    )
    assert qwen.generate(prompt, depth=policy, **options)[0].tokens == expected
    signals = policy.seen[1]
    assert (signals.drafted, signals.accepted) == (4, 2)
    assert signals.tokens == tuple(expected[1:4])
    assert signals.targets is not None
    assert signals.targets.tolist() == expected[1:4]
    assert signals.shadow_tokens is not None
    assert signals.shadow_probabilities is not None
    assert signals.shadow_tokens.shape == signals.shadow_probabilities.shape == (2, 3)
    assert signals.shadow_tokens[1].tolist() == expected[1:4]  # after the last stage
    decoding = start(qwen, 1)
    decoding.step(np.array([prompt]))
    decoding.feed(np.array([expected[:3]]))
    decoding.run(0)
    scores = decoding.read(3, want_logits=True)
    assert signals.shadow_tokens[0].tolist() == scores.next_token[0].tolist()
    assert scores.logits is not None
    np.testing.assert_allclose(
        signals.shadow_probabilities[0], softmax_max(scores.logits[0]), atol=TOLERANCE
    )
    statistics = qwen.statistics
    assert (statistics.drafted, statistics.accepted, statistics.steps) == (4, 2, 9)
    assert statistics.layers == LAYERS * (5 + 8)
    assert statistics.exits == {LAYERS: 11}
    assert signals.clock is not None
    assert signals.clock.get(("head",), 5) is not None
    assert signals.clock.get(("stage", 1, "full"), 5) is not None


def test_what_a_look_tells(generator: Generator) -> None:
    """Each measure at each exit; choosing after a look by the head asks nobody again."""
    looks = [
        Plan(ALL[:1], "look", measure="softmax_diff"),
        Plan(ALL[1:2], "look", measure="state"),
        Plan((), "look", measure="meta"),
        Plan(ALL[2:], "look", measure="softmax_max"),
        Plan(()),
    ]
    policy = Scripted(one_after_another(looks), Needs(meta=True))
    inputs = [[7, 3, 9, 5], [4, 8]]
    options: dict[str, Any] = {"max_new_tokens": 4}
    found = generator.generate(inputs, depth=policy, **options)
    assert [r.tokens for r in found] == [r.tokens for r in generator.generate(inputs, **options)]
    diff, state, meta, highest = (signals.confidence for signals in policy.seen[1:5])
    assert diff is not None
    assert state is not None
    assert meta is not None
    assert highest is not None
    encodes = generator.bundle.manifest.encoder is not None
    decoding = cast("Decoding", generator.start_decoding(inputs if encodes else None, 2))
    if encodes:
        decoding.step(np.zeros((2, 1), np.int64))
    else:
        decoding.step(np.array([[7, 3, 9, 5], [4, 8, 0, 0]]), counts=np.array([4, 2]))
    decoding.feed(np.array([r.tokens[:1] for r in found]))
    decoding.run(0)
    before = decoding.states[:, -1].copy()
    logits = decoding.read(want_logits=True).last.logits
    assert logits is not None
    np.testing.assert_allclose(diff, softmax_diff(logits), atol=TOLERANCE)
    assert decoding.last_states()[0] is None
    decoding.run(1)
    after = decoding.states[:, -1]
    cosine = (
        (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    )
    np.testing.assert_allclose(state, cosine, atol=TOLERANCE)
    np.testing.assert_allclose(meta, decoding.confidence(), atol=TOLERANCE)
    decoding.run(2)
    logits = decoding.read(want_logits=True).last.logits
    assert logits is not None
    np.testing.assert_allclose(highest, softmax_max(logits), atol=TOLERANCE)


def test_rows_that_have_ended_are_sure(generator: Generator) -> None:
    inputs = [[7, 3, 9, 5], [4, 8]]
    options: dict[str, Any] = {"max_new_tokens": 8}
    rows = [r.tokens for r in generator.generate(inputs, **options)]
    end = next(t for t in rows[0][2:] if t not in rows[1])  # only the first row comes to it
    look = Plan(ALL[:1], "look", measure="meta")
    rest = Plan(ALL[1:])
    policy = Scripted(one_after_another([look, rest] * 7))
    found = generator.generate(inputs, depth=policy, **{**options, "eos_token_ids": [end]})
    length = rows[0].index(end) + 1
    assert [r.tokens for r in found] == [rows[0][:length], rows[1]]
    sure = [s.confidence[0] == 1 for s in policy.seen if s.confidence is not None]
    assert sure == [False] * (length - 1) + [True] * (8 - length)
    assert generator.statistics.tokens == length - 1 + 7


def test_routers_are_read_once(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over a row's own prompt, in one piece or in several; 1 without a router."""
    inputs = [[7, 3, 9, 5, 6], [4, 8]]
    policy = Scripted(lambda _step, _signals: FULL, Needs(routers=EVERYTHING.routers))
    generator.generate(inputs, depth=policy, max_new_tokens=3)
    scores = policy.seen[0].routers
    assert scores is not None
    assert all(signals.routers is None for signals in policy.seen[1:])
    assert scores.shape == (2, LAYERS)
    assert ((scores > 0) & (scores < 1)).all(axis=0).tolist() == [False, True, False, True]
    assert (scores[:, [0, 2]] == 1).all()
    monkeypatch.setattr("edgedec.runtime.generator.PREFILL", 2)
    pieces = Scripted(policy.script, policy.need)
    generator.generate(inputs, depth=pieces, max_new_tokens=3)
    assert pieces.seen[0].routers is not None
    np.testing.assert_allclose(pieces.seen[0].routers, scores, atol=TOLERANCE)
    for row, item in enumerate(inputs):
        alone = Scripted(policy.script, policy.need)
        generator.generate(item, depth=alone, max_new_tokens=3)
        assert alone.seen[0].routers is not None
        np.testing.assert_allclose(alone.seen[0].routers[0], scores[row], atol=TOLERANCE)


@pytest.mark.parametrize("beams", [1, 3])
def test_batches_that_wait_give_what_full_depth_gives(generator: Generator, beams: int) -> None:
    """Where no token is chosen early: positions go deep late, but before anything depends on it."""
    plans = [
        plan
        for depth in (1, 2, 1, 2, 2)
        for plan in (
            Plan(ALL[:depth], "look", measure="meta", wait=True),
            Plan(ALL[depth:]),
        )
    ]
    options: dict[str, Any] = {"max_new_tokens": 9, "num_beams": beams}
    expected = generator.generate(SOURCES, **options)
    policy = Scripted(one_after_another(plans), Needs(meta=True))
    assert generator.generate(SOURCES, depth=policy, **options) == expected


def test_exits_are_counted(qwen: Generator) -> None:
    """Three tokens by one stage, then full depth, which takes the others along."""
    leave = Plan(ALL[:1], wait=True)
    options: dict[str, Any] = {"max_new_tokens": 8, "min_new_tokens": 8}
    qwen.generate([7, 3], depth=Scripted(one_after_another([leave] * 3)), **options)
    statistics = qwen.statistics
    assert statistics.exits == {1: 3, LAYERS: 4}
    assert statistics.layers == LAYERS * 7
    assert statistics.mean_layers == LAYERS
    masked = Plan((ALL[0], Pass(1, rows=(True, False)), ALL[2]))
    options["max_new_tokens"] = 2
    qwen.generate(
        [[7, 3], [5, 4]],
        depth=Scripted(one_after_another([masked])),
        **{**options, "min_new_tokens": 2},
    )
    assert qwen.statistics.exits == {2: 1, 4: 1}
    assert qwen.statistics.layers == 2 * 4  # the second row was computed too
    assert set(qwen.statistics.seconds) == {
        "encode",
        "prompt",
        "stages",
        "fill",
        "low-rank",
        "head",
    }
    assert qwen.statistics.total_seconds > 0


def test_policies_of_one_row(generator: Generator) -> None:
    """A batch goes one by one, in any batch size; beams are refused."""
    policy = OneRow(lambda _step, _signals: FULL)
    sampling: dict[str, Any] = {"temperature": 1.0, "seed": 3}
    for options in ({}, sampling):
        expected = generator.generate(SOURCES, max_new_tokens=5, **options)
        assert generator.generate(SOURCES, depth=policy, max_new_tokens=5, **options) == expected
    assert {request.rows for request in policy.requests} == {1}
    assert policy.requests[-1].limit == 5
    with pytest.raises(InputError, match="--depth scripted does not go with beam search"):
        generator.generate(SOURCES, depth=policy, num_beams=2)


def test_depth_of_a_generator_and_of_a_call(qwen: Generator) -> None:
    policy = Scripted(lambda _step, _signals: FULL)
    own = Generator(qwen.bundle, threads=1, depth=policy)
    own.generate([3, 4], max_new_tokens=2)
    assert len(policy.requests) == 2  # one of them was the check
    own.generate([3, 4], max_new_tokens=2, depth="full")
    assert len(policy.requests) == 2
    with pytest.raises(InputError, match="no such policy"):
        Generator(qwen.bundle, threads=1, depth="half")
