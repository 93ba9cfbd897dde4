"""Bundles of fixed shapes generate what those of any length do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedec.errors import InputError
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.decoder import Decoding
from edgedec.runtime.generator import Generator
from edgedec.runtime.static.decoding import StaticDecoding

INPUTS = [[3, 9, 4, 1], [7, 1], [5, 6, 8, 10, 12, 2, 20, 4, 1]]
"""As long as sources may be, and shorter."""
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "one by one": {"batch_size": 1},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "temperature": 0.9, "seed": 4},
    "rules": {"no_repeat_ngram_size": 1, "repetition_penalty": 1.3},
    "ends": {"eos_token_ids": (7, 11, 13, 20), "pad_token_id": 0},
}
KINDS = ("exported", "decoder_only")


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def plain(kind: str, request: pytest.FixtureRequest) -> Generator:
    """A bundle of any length, with the limits of the one of fixed shapes."""
    return limited(request.getfixturevalue(kind))


def limited(folder: Path) -> Generator:
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    io = replace(
        manifest.interface, max_source=None if manifest.encoder is None else 9, max_target=12
    )
    return Generator(Bundle(folder, replace(manifest, interface=io)), threads=1)


@pytest.fixture(scope="session")
def static(kind: str, request: pytest.FixtureRequest) -> Generator:
    name = {"exported": "fixed", "decoder_only": "fixed_decoder_only"}[kind]
    return Generator(open_bundle(request.getfixturevalue(name)), threads=1)


def tokens(generator: Generator, inputs: list[list[int]] | None = None, **options: Any) -> Any:
    return [r.tokens for r in generator.generate(INPUTS if inputs is None else inputs, **options)]


@pytest.mark.parametrize("way", WAYS)
def test_same_tokens(plain: Generator, static: Generator, way: str) -> None:
    expected = tokens(plain, **WAYS[way])
    assert tokens(static, **WAYS[way]) == expected
    assert sum(map(len, expected)) > len(INPUTS)


def test_stream_and_statistics(static: Generator) -> None:
    streamed = [chunk.token for chunk in static.stream(INPUTS[0], max_new_tokens=5)]
    assert streamed == tokens(static, INPUTS[:1], max_new_tokens=5)[0]
    statistics = static.statistics
    layers = static.bundle.manifest.interface.decoder_layers
    assert statistics.layers == layers * statistics.tokens
    assert statistics.seconds["stages"] > 0


def test_same_logits(plain: Generator, static: Generator) -> None:
    """Padded batches, several tokens at a time, and one by one."""
    encodes = plain.bundle.manifest.encoder is not None
    rng = np.random.default_rng(5)
    fed = rng.integers(2, 28, (3, 7))
    counts = np.array([7, 1, 4])
    found = []
    for generator in (plain, static):
        decoding = generator.start_decoding(INPUTS if encodes else None, 3)
        outputs = [decoding.step(fed, counts=counts, want_logits=True).copy()]
        for _ in range(3):
            step = decoding.step(fed[:, :1], want_logits=True)
            assert step.logits is not None
            assert np.array_equal(step.logits.argmax(axis=1), step.next_token)
            outputs.append(step.copy())
        decoding.crop(4)
        decoding.reorder(np.array([2, 2, 0]) if not encodes else np.array([0, 1, 2]))
        decoding.fork(2)
        outputs.append(decoding.step(np.repeat(fed[:, 2:4], 2, axis=0), want_logits=True).copy())
        found.append(outputs)
    assert isinstance(static.start_decoding(INPUTS if encodes else None, 3), StaticDecoding)
    for one, other in zip(*found, strict=True):
        assert one.logits is not None
        assert other.logits is not None
        # float32 in another order; -40 in the place of -1e9 hides keys as well
        assert np.abs(one.logits - other.logits).max() < 2e-4 * np.ptp(one.logits)


@pytest.fixture(scope="session")
def unrolled(kind: str, request: pytest.FixtureRequest, fix: Callable[..., Path]) -> Generator:
    """Three greedy steps in one run."""
    folder = fix(request.getfixturevalue(kind), f"{kind}-unrolled", unroll=3)
    return Generator(open_bundle(folder), threads=1)


@pytest.mark.parametrize("way", ["greedy", "one by one", "ends"])
def test_several_steps_in_one_run(plain: Generator, unrolled: Generator, way: str) -> None:
    assert tokens(unrolled, **WAYS[way]) == tokens(plain, **WAYS[way])


def test_what_was_predicted_is_not_run_again(unrolled: Generator) -> None:
    encodes = unrolled.bundle.manifest.encoder is not None
    unrolled.spans.on = True
    unrolled.spans.take()
    tokens(unrolled, INPUTS[:1], max_new_tokens=7, eos_token_ids=())
    runs = [s for s in unrolled.spans.take() if s.kind == "run" and s.name == "decoder"]
    unrolled.spans.on = False
    # A prompt of four is read token by token; the last of them begins to predict.
    assert len(runs) == 3 + (0 if encodes else 3)


def test_teacher_forcing_of_predictions(plain: Generator, unrolled: Generator) -> None:
    """What is fed is another token than was predicted, or the same, as it comes."""
    encodes = plain.bundle.manifest.encoder is not None
    rng = np.random.default_rng(2)
    ways = [g.start_decoding(INPUTS[:1] if encodes else None, 1) for g in (plain, unrolled)]
    token = 3
    for step in range(12):
        one, other = (int(w.step(np.array([[token]])).next_token[0]) for w in ways)
        assert one == other
        token = one if rng.random() < 0.6 else int(rng.integers(2, 28))
        if step == 6:
            for decoding in ways:
                decoding.crop(5)
            token = 9
        if step == 8:
            break


def test_predictions_end_with_what_they_followed(plain: Generator, unrolled: Generator) -> None:
    """After a crop, a token that was predicted follows something else."""
    encodes = plain.bundle.manifest.encoder is not None
    found: list[list[int]] = []
    for generator in (plain, unrolled):
        chosen = []
        for forced in range(2, 28):
            decoding = generator.start_decoding(INPUTS[:1] if encodes else None, 1)
            decoding.step(np.array([[3]]))
            token = decoding.step(np.array([[forced]])).next_token[0]
            decoding.crop(1)
            chosen.append(int(decoding.step(np.array([[token]])).next_token[0]))
        found.append(chosen)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 2}, "--unroll 1"),
        ({"do_sample": True, "temperature": 1.0}, "--unroll 1"),
        ({"no_repeat_ngram_size": 2}, "--unroll 1"),
        ({"depth": "ngram"}, "runs in full"),
    ],
)
def test_what_needs_scores(unrolled: Generator, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        unrolled.generate([], **options)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("precision", [None, "fp16"])
def test_one_part_of_fixed_shapes(
    exported: Path, fix: Callable[..., Path], part: str, precision: str | None
) -> None:
    """What the encoder gives is made into what the decoder reads."""
    plain = limited(exported)
    folder = fix(exported, f"{part}-{precision}", precision, parts=frozenset({part}))
    mixed = Generator(open_bundle(folder), threads=1)
    starts = [g.start_decoding(INPUTS, 3) for g in (plain, mixed)]
    assert isinstance(starts[1], Decoding) == (part == "encoder")
    one, other = (s.step(np.array([[4], [9], [5]]), want_logits=True).logits for s in starts)
    assert one is not None
    assert other is not None
    assert np.abs(one - other).max() < (2e-4 if precision is None else 1e-2) * np.ptp(one)
    if precision is None:
        assert tokens(mixed, num_beams=2) == tokens(plain, num_beams=2)


def test_too_much(static: Generator) -> None:
    encodes = static.bundle.manifest.encoder is not None
    with pytest.raises(InputError, match=r"10 tokens.*takes 9" if encodes else "takes 12"):
        tokens(static, [[3] * (10 if encodes else 12)])
    assert len(tokens(static, [[3, 1]], max_new_tokens=99, eos_token_ids=())[0]) < 12
    decoding = static.start_decoding(INPUTS[:1] if encodes else None, 1)
    with pytest.raises(InputError, match="takes 12 tokens, and would be fed 13"):
        decoding.step(np.full((1, 13), 3))


def test_unrolled_rows_that_follow_others(plain: Generator, unrolled: Generator) -> None:
    """A row that continues another one has not got that one's predictions, nor its own."""
    encodes = plain.bundle.manifest.encoder is not None
    found = []
    for generator in (plain, unrolled):
        chosen = []
        for first in range(2, 28, 2):
            decoding = generator.start_decoding(INPUTS[:1] * 2 if encodes else None, 2)
            token = decoding.step(np.array([[first], [first + 1]])).next_token.copy()
            decoding.step(token[:, None])
            decoding.reorder(np.array([1, 1]))
            token = decoding.step(token[:, None]).next_token.copy()
            chosen.append(token.tolist())
        found.append(chosen)
    assert found[0] == found[1]


@pytest.mark.parametrize("copies", [2, 10**9])
def test_more_rows_are_checked_for_memory(
    static: Generator, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    encodes = static.bundle.manifest.encoder is not None
    decoding = static.start_decoding(INPUTS[:1] if encodes else None, 1)
    if copies == 2:
        decoding.fork(copies)
        return
    monkeypatch.setattr(np, "repeat", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(InputError, match="decoding 1000000000 sequences at a time needs about"):
        decoding.fork(copies)
