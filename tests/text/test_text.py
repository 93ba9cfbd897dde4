"""The runtime tokenizer: what it accepts, what it refuses, and that nothing gets past it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.conftest import TEXTS

from edgedec.errors import BundleError, InputError
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.runtime.text import Tokenizer


@pytest.fixture(scope="session")
def content(t5_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("t5")
    (path / "spiece.model").write_bytes(t5_model)
    files = convert_tokenizer(path, {"model_type": "t5"})
    assert files is not None
    parsed: dict[str, Any] = json.loads(files.tokenizer)
    return parsed


@pytest.fixture(scope="session")
def tokenizer(content: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_bytes(json.dumps(content).encode())


def test_batches_equal_single_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(TEXTS) == [tokenizer.encode([text])[0] for text in TEXTS]
    assert tokenizer.encode([]) == []
    assert tokenizer.encode([""]) == [[1]]


def test_nothing_is_cut_or_padded(content: dict[str, Any], tokenizer: Tokenizer) -> None:
    limit = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding: dict[str, Any] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
    }
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    stored = Tokenizer.from_bytes(
        json.dumps({**content, "truncation": limit, "padding": padding}).encode()
    )
    assert stored.encode(TEXTS) == tokenizer.encode(TEXTS)


@pytest.mark.parametrize("count", [1, 2])
def test_a_lone_surrogate_is_one_sentence(count: int, tokenizer: Tokenizer) -> None:
    texts = ["fine", "ab\udc80c"][-count:]
    with pytest.raises(InputError, match=rf"Input {count - 1} .* character 2 .* U\+DC80"):
        tokenizer.encode(texts)


def test_only_lists_of_texts(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="list of texts"):
        tokenizer.encode("text")
    with pytest.raises(InputError, match="Input 1 is bytes"):
        tokenizer.encode(["a", b"b"])  # type: ignore[list-item]


@pytest.mark.parametrize("token", [-1, 1 << 32])
def test_impossible_ids(token: int, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=f"{token} is not a token id"):
        tokenizer.decode([5, token])
    with pytest.raises(InputError, match=f"{token} is not a token id"):
        tokenizer.decoder().push(token)


def test_specials_and_unknown_ids_are_silent(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["Hello world"])
    noisy = [0, *ids[:2], 1, tokenizer.vocab_size + 5, *ids[2:], (1 << 32) - 1]
    assert tokenizer.decode(noisy) == tokenizer.decode(ids) == "Hello world"
    assert tokenizer.decode([]) == ""


def test_vocab_size_counts_gaps() -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 9}, "merges": []}
    sparse = Tokenizer.from_bytes(json.dumps({"version": "1.0", "model": model}).encode())
    assert sparse.vocab_size == 10
    assert sparse.id_of("b") == 9
    assert sparse.id_of("c") is None


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_back_through_bytes(text: str) -> None:
    files = convert_tokenizer(Path("nowhere"), {"tokenizer_class": "ByT5Tokenizer"})
    assert files is not None
    byt5 = Tokenizer.from_bytes(files.tokenizer)
    try:
        (ids,) = byt5.encode([text])
    except InputError:
        assert any(0xD800 <= ord(character) < 0xE000 for character in text)
        return
    if "<" not in text:  # the special tokens
        assert byt5.decode(ids) == text.replace("\ufffd", "")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"Cannot read the tokenizer .*tokenizer\.json: No such"):
        Tokenizer.open(tmp_path / "tokenizer.json")
    with pytest.raises(BundleError, match="Is a directory"):
        Tokenizer.open(tmp_path)


@settings(deadline=None)
@given(st.data())
def test_damaged_files_end_in_one_sentence(
    content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    small = {**content, "model": {**content["model"], "vocab": content["model"]["vocab"][:40]}}
    small["added_tokens"] = small["added_tokens"][:3]
    small["normalizer"] = {"type": "Prepend", "prepend": "▁"}
    whole = bytearray(json.dumps(small, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "tokenizer.json"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        tokenizer = Tokenizer.open(path)
        for ids in tokenizer.encode(["Hello wörld </s>", ""]):
            tokenizer.decode(ids)
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017 - intact files are fine, too


def test_a_rust_panic_is_one_sentence(content: dict[str, Any], tmp_path: Path) -> None:
    # A table this short is accepted by the reader and makes the normalizer index beyond its end.
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**content, "normalizer": charsmap}))
    with pytest.raises(BundleError, match="export the checkpoint again"):
        Tokenizer.open(path).encode(["Hello"])


def test_only_the_tokenizers_package_is_imported() -> None:
    code = (
        "import sys; before = set(sys.modules); import edgedec.runtime.text;"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in"
        " ('tokenizers', 'numpy', 'onnxruntime', 'transformers', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_folders_without_a_tokenizer(folder: Callable[..., Path]) -> None:
    assert convert_tokenizer(folder(config__json={}), {"model_type": "t5"}) is None
    assert convert_tokenizer(folder(), {"model_type": "mu"}) is None
