"""Policies that promise the tokens of full depth keep it, across cache borders too."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.depth.models import VOCAB, make

from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.cache import VIEW
from edgedec.runtime.generator import Generator, Input, Result

PROMPTS = 200


@dataclass(frozen=True)
class Subject:
    """A model, what it is asked, and what it says at full depth.

    Attributes:
        prompts: each with the most tokens that follow it.
    """

    generator: Generator
    prompts: list[tuple[list[Input], int]]
    full: list[list[int]]

    def tokens(self, depth: str, batch_size: int = 1) -> list[list[int]]:
        return tokens(self.generator, self.prompts, depth, batch_size)


def tokens(
    generator: Generator, prompts: list[tuple[list[Input], int]], depth: str, batch_size: int
) -> list[list[int]]:
    found: list[Result] = []
    for items, limit in prompts:
        found += generator.generate(
            items, batch_size=batch_size, depth=depth, max_new_tokens=limit, num_beams=1
        )
    return [result.tokens for result in found]


def random_t5(folder: Path) -> Generator:
    """An encoder-decoder of 4 layers without a limit to its texts."""
    made = make("t5", folder, cuts=(0, 1, 2, 3)).bundle
    io = replace(made.manifest.interface, max_source=None, max_target=None)
    generation = made.manifest.generation.override(decoder_start_token_id=0)
    return Generator(
        Bundle(folder, replace(made.manifest, interface=io, generation=generation)), threads=1
    )


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    generator = random_t5(tmp_path_factory.mktemp("lossless") / "t5")
    rng = np.random.default_rng(5)
    sources: list[Input] = [
        rng.integers(2, VOCAB, rng.integers(1, 12)).tolist() for _ in range(PROMPTS)
    ]
    # most are short; the others cross the border of what caches show
    return subject(generator, [(sources[:3], VIEW + 12), (sources[3:], 6)])


@pytest.fixture(scope="module")
def g2p(staged_g2p: Path, root: Path) -> Subject:
    words = sorted({word.strip(".,:;()`'\"*").lower() for word in (root / "README.md").read_text(
        encoding="utf-8").split()})  # fmt: skip
    chosen: list[Input] = [
        word for word in words if word.isalpha() and word.isascii() and len(word) > 2
    ]
    assert len(chosen) >= PROMPTS
    return subject(
        Generator(open_bundle(staged_g2p), threads=1), [(chosen[:30], 32), (chosen[30:PROMPTS], 4)]
    )


@pytest.fixture(scope="module")
def layerskip_lm(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Subject:
    checkpoint = shared / "checkpoints" / "lm-layerskip"
    folder = export_checkpoint(
        checkpoint, tmp_path_factory.mktemp("lossless") / "lm", stages="all", verify=False
    )
    with gzip.open(checkpoint / "heldout.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read()
    # Prompts of 1 to 20 words; a few texts are long.
    prompts: list[Input] = [
        " ".join(text[i * 2000 : i * 2000 + 400].split()[1 : 2 + i * 7 % 20])
        for i in range(PROMPTS)
    ]
    return subject(Generator(open_bundle(folder), threads=1), [(prompts[:8], 24), (prompts[8:], 3)])


def subject(generator: Generator, prompts: list[tuple[list[Input], int]]) -> Subject:
    assert sum(len(items) for items, _ in prompts) == PROMPTS
    return Subject(generator, prompts, tokens(generator, prompts, "full", 25))


SUBJECTS = ("t5", "g2p", "layerskip_lm")
LOSSLESS = ("layerskip:exit=1,drafts=3", "del", "ngram")


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("depth", LOSSLESS)
def test_drafts_do_not_change_a_token(
    name: str, depth: str, request: pytest.FixtureRequest
) -> None:
    model: Subject = request.getfixturevalue(name)
    assert model.tokens(depth) == model.full
    statistics = model.generator.statistics
    if depth.startswith("layerskip"):
        assert 0 < statistics.accepted < statistics.drafted


@pytest.mark.parametrize("name", SUBJECTS)
def test_free_without_exits_does_not_change_a_token(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: Subject = request.getfixturevalue(name)
    assert model.tokens("free:exit=1,threshold=1", batch_size=25) == model.full


NEUTRAL = (
    "skipdecode:min=4,max=4",
    "unified:layers=4",
    "d3:alpha=1",
    "first:threshold=0",
    "first:layers=4",
    "lora-drop:cycle=1",
    "early-exit:threshold=1",
    "free:exit=2,threshold=1",
)


@pytest.mark.parametrize("depth", NEUTRAL)
def test_neutral_settings_do_not_change_a_bit(depth: str, t5: Subject) -> None:
    sources = t5.prompts[1][0][:12]
    both = [
        t5.generator.generate(sources, depth=d, num_beams=3, max_new_tokens=20)
        for d in ("full", depth)
    ]
    assert both[0] == both[1]  # scores of beams are sums of logits
    assert all(result.score is not None for result in both[0])


DRAFTERS: st.SearchStrategy[str] = st.one_of(
    st.builds("layerskip:exit={},drafts={}".format, st.integers(1, 3), st.integers(1, 9)),
    st.builds("del:max={},interval={}".format, st.integers(1, 9), st.integers(1, 4)),
    st.builds("ngram:n={},drafts={}".format, st.integers(2, 4), st.integers(1, 9)),
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A decoder-only model of 4 layers, so that prompts put texts wherever a test wants."""
    folder = tmp_path_factory.mktemp("lossless") / "qwen"
    made = make("qwen", folder, cuts=(0, 1, 2, 3)).bundle
    io = replace(made.manifest.interface, max_target=None)
    return Generator(Bundle(folder, replace(made.manifest, interface=io)), threads=1)


@given(st.data())
@settings(max_examples=40)
def test_any_drafts_at_any_place(decoder: Generator, data: st.DataObject) -> None:
    """Drafts are taken back right at the borders of what caches show and hold, too."""
    depth = data.draw(DRAFTERS)
    border = data.draw(st.sampled_from([VIEW, 2 * VIEW]))
    length = data.draw(st.integers(border - 12, border + 1))
    seed = data.draw(st.integers(0, 99))
    prompt = np.random.default_rng(seed).integers(2, 6, length).tolist()
    sampled: dict[str, object] = data.draw(
        st.sampled_from([{}, {"do_sample": True, "seed": seed, "temperature": 0.5}])
    )
    generate: Callable[..., list[Result]] = decoder.generate
    both = [generate(prompt, max_new_tokens=24, depth=d, **sampled) for d in ("full", depth)]
    assert both[0] == both[1]
