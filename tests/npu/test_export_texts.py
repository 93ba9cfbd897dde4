"""The texts that exports for NPUs are calibrated and verified on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.export.tiny import VOCAB
from tests.npu.exports import LENGTHS, take_few_tokens

from edgedec.builtin import resolve_bundle
from edgedec.errors import InputError
from edgedec.export.calibration import shorten
from edgedec.export.npu import texts
from edgedec.export.npu.options import NpuOptions, shapes_of
from edgedec.export.passages import Passage, first_tokens, limited
from edgedec.export.places import place
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.text import Tokenizer


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    take_few_tokens(monkeypatch)


def quiet(_what: str, _fraction: float) -> None:
    """Nobody looks."""


passages = st.lists(
    st.integers(1, 9).map(lambda n: Passage((1,), (0,), tuple(range(n)))), min_size=1, max_size=9
)


@given(passages, st.integers(1, 50))
def test_first_tokens_are_enough_and_no_more(some: list[Passage], wanted: int) -> None:
    found = first_tokens(some, wanted)
    every = [token for passage in some for token in passage.written]
    assert [token for passage in found for token in passage.written] == every[:wanted]
    assert all(passage.written for passage in found)
    assert found[:-1] == some[: len(found) - 1]


def test_a_text_for_a_model_without_a_tokenizer(plain: Path, tmp_path: Path) -> None:
    """Random tokens that the model has, and what it says about them."""
    place_ = place("qnn")
    assert place_ is not None
    opened = open_bundle(plain)
    shapes = shapes_of(opened.manifest, NpuOptions("qnn", place_, **LENGTHS))
    bundle = limited(opened, shapes.source, shapes.target)
    generator = Generator(bundle, threads=1)
    text = texts.read_text(bundle, None, generator, quiet)
    found = texts.passages_of(bundle, text, generator, quiet)
    assert all(0 < len(p.source or ()) <= 8 and p.prompt == (0,) for p in found)
    assert all(len(p.written) <= 12 for p in found)
    assert {t for p in found for t in p.read} <= set(range(VOCAB)) - {0, 1}
    said = generator.generate([list(p.source or ()) for p in found], num_beams=1)
    assert [tuple(result.tokens) for result in said] == [p.written for p in found]
    file = tmp_path / "t.txt"
    file.write_text("a text")
    with pytest.raises(InputError, match="no tokenizer to read it with"):
        texts.read_text(bundle, file, generator, quiet)


@given(
    st.lists(st.integers(3, 9), min_size=1, max_size=9),
    st.lists(st.integers(0, 2), max_size=3),
    st.lists(st.integers(0, 2), max_size=2),
    st.data(),
)
def test_what_is_cut_keeps_its_end(
    words: list[int], front: list[int], back: list[int], data: st.DataObject
) -> None:
    tokens = [*front, *words, *back]
    length = data.draw(st.integers(1, len(tokens)))
    found = shorten(tokens, length, [*front, *back])
    assert len(found) == length
    kept = min(len(back), length - 1)
    assert found[length - kept :] == tokens[len(tokens) - kept :]
    assert found[: length - kept] == tokens[: length - kept]


def test_long_sources_are_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = open_bundle(resolve_bundle("g2p"))
    file = tmp_path / "t.txt"
    file.write_text("deployment\nquantization\ncalibration\n")
    tokenizer = Tokenizer.open(opened.path("tokenizer.json"))
    whole = tokenizer.encode(["deployment", "quantization", "calibration"])
    bundle = limited(opened, 4, 3)  # the target's length does not count
    generator = Generator(bundle, threads=1)
    with caplog.at_level(logging.INFO, "edgedec.export.calibration"):
        text = texts.read_text(bundle, file, generator, quiet)
    found = texts.passages_of(bundle, text, generator, quiet)
    end = len(tokenizer.encode([""])[0])
    wanted = {(*ids[: 4 - end], *ids[len(ids) - end :]) for ids in whole}
    assert {passage.source for passage in found} == wanted
    assert "3 of the texts were cut to the 4 tokens" in caplog.text
