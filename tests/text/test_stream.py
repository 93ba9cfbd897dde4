"""Streaming: joined chunks are the whole text, and no chunk ends inside a character."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.text.conftest import SENTENCES, TEXTS, merges_text

from edgedec.export.tokenizer import convert_tokenizer
from edgedec.runtime.text import StreamDecoder, Tokenizer

KINDS = ["t5", "mt5", "llama", "gpt2", "byt5", "marian", "wordpiece"]


@pytest.fixture(scope="session", params=KINDS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    kind = request.param
    path = tmp_path_factory.mktemp(kind)
    if kind == "wordpiece":
        return wordpiece()
    config: dict[str, Any] = {"model_type": kind}
    if kind == "byt5":
        config = {"tokenizer_class": "ByT5Tokenizer"}
    elif kind == "gpt2":
        vocabulary, merges = request.getfixturevalue("byte_pairs")
        (path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (path / "merges.txt").write_text(merges_text(merges), encoding="utf-8")
    elif kind == "marian":
        source, _ = request.getfixturevalue("marian_models")
        joint = json.dumps(request.getfixturevalue("marian_joint"))
        (path / "source.spm").write_bytes(source)
        (path / "vocab.json").write_text(joint, encoding="utf-8")
    else:
        name = "tokenizer.model" if kind == "llama" else "spiece.model"
        (path / name).write_bytes(request.getfixturevalue(f"{kind}_model"))
    files = convert_tokenizer(path, config)
    assert files is not None
    return Tokenizer.from_bytes(files.tokenizer)


def wordpiece() -> Tokenizer:
    """A vocabulary from elsewhere, with a decoder that joins words."""
    tokens = ["[UNK]", "hello", "##ing", "world", ",", "##s", "é", "##漢"]
    model: dict[str, Any] = {
        "type": "WordPiece",
        "vocab": {text: i for i, text in enumerate(tokens)},
    }
    model |= {"unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    content: dict[str, Any] = {"version": "1.0", "decoder": decoder}
    content["model"] = model | {"max_input_chars_per_word": 100}
    return Tokenizer.from_bytes(json.dumps(content).encode())


def chunks_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = tokenizer.decoder()
    return [*(decoder.push(token) for token in ids), decoder.flush()]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_joined_chunks_are_the_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    size = tokenizer.vocab_size
    some = st.lists(st.integers(0, size + 3), max_size=60)
    few = st.lists(
        st.sampled_from(data.draw(st.lists(st.integers(0, size), min_size=1, max_size=3)))
    )
    low = st.lists(st.integers(0, min(size, 300)), max_size=80)  # bytes, where there are any
    ids = data.draw(st.one_of(some, few, low))
    chunks = chunks_of(tokenizer, ids)
    assert "".join(chunks) == tokenizer.decode(ids)
    assert not any(chunk.endswith("\ufffd") for chunk in chunks[:-1])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.one_of(st.sampled_from(TEXTS + SENTENCES), st.text()), max_size=4))
def test_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    text = " ".join(texts).encode("utf-8", "replace").decode()
    (ids,) = tokenizer.encode([text])
    assert "".join(chunks_of(tokenizer, ids)) == tokenizer.decode(ids)


def test_long_texts(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["\n".join(TEXTS + SENTENCES) * 3])
    assert "".join(chunks_of(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["byt5", "gpt2"])
def test_text_comes_as_early_as_it_can(
    kind: str, byte_pairs: Any, folder: Callable[..., Path]
) -> None:
    vocabulary, merges = byte_pairs
    config = {"tokenizer_class": "ByT5Tokenizer"} if kind == "byt5" else {"model_type": "gpt2"}
    path = folder(vocab__json=vocabulary, merges__txt=merges_text(merges))
    files = convert_tokenizer(path, config)
    assert files is not None
    tokenizer = Tokenizer.from_bytes(files.tokenizer)
    (ids,) = tokenizer.encode(["a🙂é"])
    decoder = tokenizer.decoder()
    sent = ""
    for count, token in enumerate(ids, 1):
        sent += decoder.push(token)
        certain = tokenizer.decode(ids[:count]).rstrip("\ufffd")
        assert sent == certain
    assert sent == "a🙂é"
    assert decoder.flush() == ""


def test_the_window_stays_small(tokenizer: Tokenizer) -> None:
    worst = 0
    silent = [tokenizer._is_silent(token) for token in range(tokenizer.vocab_size)]
    loud = [token for token, quiet in enumerate(silent) if not quiet]
    (ids,) = tokenizer.encode(["\n".join(SENTENCES) * 5])
    for tokens in (ids, loud, [loud[0]] * 500, [loud[-1]] * 500):
        decoder = StreamDecoder(tokenizer)
        for token in tokens:
            decoder.push(token)
            held = len(decoder._window)
            if token not in tokenizer._byte_pieces:
                worst = max(worst, held)
    assert worst <= 18
