"""Vocabularies over bytes: same ids and texts as transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.conftest import SENTENCES, TEXTS, merges_text

from edgedec.errors import CheckpointError
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.runtime.text import Tokenizer

BytePairs = tuple[dict[str, int], list[tuple[str, str]]]
ALL = [*TEXTS, *SENTENCES]


def convert(folder: Path, config: dict[str, Any]) -> Tokenizer:
    files = convert_tokenizer(folder, {"vocab_size": 5000, **config})
    assert files is not None
    return Tokenizer.from_bytes(files.tokenizer)


def same(ours: Tokenizer, theirs: Any, texts: list[str]) -> None:
    for text in texts:
        (ids,) = ours.encode([text])
        assert ids == theirs(text)["input_ids"], text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def with_specials(byte_pairs: BytePairs, *specials: str) -> BytePairs:
    """Put special tokens in front of the vocabulary, as BART and OPT do."""
    vocabulary, merges = byte_pairs
    shifted = {text: index + len(specials) for text, index in vocabulary.items()}
    return {text: index for index, text in enumerate(specials)} | shifted, merges


def test_gpt2(byte_pairs: BytePairs, folder: Callable[..., Path]) -> None:
    vocabulary, merges = byte_pairs
    vocabulary = {**vocabulary, "<|endoftext|>": len(vocabulary)}
    path = folder(vocab__json=vocabulary, merges__txt=merges_text(merges))
    ours = convert(path, {"model_type": "gpt2"})
    same(ours, transformers.GPT2Tokenizer.from_pretrained(path), [*ALL, "a<|endoftext|> b"])
    assert ours.encode([""]) == [[]]


@pytest.mark.parametrize("add_bos", [None, True, False])
def test_opt(add_bos: bool | None, byte_pairs: BytePairs, folder: Callable[..., Path]) -> None:
    vocabulary, merges = with_specials(byte_pairs, "<s>", "<pad>", "</s>", "<unk>")
    token = {"content": "</s>", "lstrip": False, "rstrip": False, "normalized": True}
    options: dict[str, Any] = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": {"__type": "AddedToken", "single_word": False, **token},
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "<pad>",
    }
    if add_bos is not None:
        options["add_bos_token"] = add_bos
    path = folder(
        vocab__json=vocabulary, merges__txt=merges_text(merges), tokenizer_config__json=options
    )
    ours = convert(path, {"model_type": "opt"})
    start = [] if add_bos is False else [2]
    assert ours.encode([""]) == [start]
    if add_bos is not None:
        same(ours, transformers.GPT2Tokenizer.from_pretrained(path), ALL)
    path = folder(tokenizer_config__json={})
    assert convert(path, {"model_type": "opt"}).encode(["</s>a"])[0][:2] == [2, 2]


@pytest.mark.parametrize("name", ["bart", "roberta"])
def test_bart(name: str, byte_pairs: BytePairs, folder: Callable[..., Path]) -> None:
    vocabulary, merges = with_specials(byte_pairs, "<s>", "<pad>", "</s>", "<unk>")
    vocabulary["<mask>"] = len(vocabulary)
    path = folder(vocab__json=vocabulary, merges__txt=merges_text(merges))
    ours = convert(path, {"model_type": name})
    same(ours, transformers.BartTokenizer.from_pretrained(path), ALL)
    assert ours.encode([""]) == [[0, 2]]
    # A mask takes the place of a word with its space.
    (ids,) = ours.encode(["a <mask> b"])
    assert ids == [0, vocabulary["a"], vocabulary["<mask>"], *ours.encode([" b"])[0][1:]]


def test_qwen2(byte_pairs: BytePairs, folder: Callable[..., Path]) -> None:
    vocabulary, merges = byte_pairs
    first = len(vocabulary)
    facts = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    decoder = {
        str(first + index): {"content": text, "special": True, **facts}
        for index, text in enumerate(special)
    }
    decoder[str(first + 3)] = {"content": "<tool_call>", "special": False, **facts}
    options = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": decoder,
        "additional_special_tokens": special[1:],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    path = folder(
        vocab__json=vocabulary, merges__txt=merges_text(merges), tokenizer_config__json=options
    )
    ours = convert(path, {"model_type": "qwen2"})
    chat = "<|im_start|>user\nhi 12345<|im_end|>\n<tool_call>{}"
    same(ours, transformers.Qwen2Tokenizer.from_pretrained(path), [*ALL, chat])
    assert ours.decode(ours.encode([chat])[0]) == "user\nhi 12345\n<tool_call>{}"


@pytest.mark.parametrize("listed", [False, True])
def test_byt5(listed: bool, folder: Callable[..., Path]) -> None:
    config = {"model_type": "t5", "tokenizer_class": "ByT5Tokenizer", "vocab_size": 384}
    theirs = transformers.ByT5Tokenizer()
    path = folder()
    if listed:
        theirs.save_pretrained(path)
    ours = convert(path, config)
    assert ours.vocab_size == len(theirs) == 384
    same(ours, theirs, [*ALL, "x <extra_id_0>y<extra_id_124>"])
    assert ours.encode(["aé"]) == [[100, 198, 172, 1]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 383), max_size=30))
def test_byt5_decodes_any_ids_like_transformers(ids: list[int]) -> None:
    config = {"tokenizer_class": "ByT5Tokenizer"}
    files = convert_tokenizer(Path("nowhere"), config)
    assert files is not None
    theirs: Any = transformers.ByT5Tokenizer().decode(ids, skip_special_tokens=True)
    assert Tokenizer.from_bytes(files.tokenizer).decode(ids) == theirs.replace("\ufffd", "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"merges__txt": "#version: 0.2\na b c\n"}, "Line 2 of .*merges.txt"),
        ({"merges__txt": "zz yy\n"}, "Line 1 of .*merges.txt"),
        ({"merges__txt": b"\xff\xfe"}, "merges.txt is not UTF-8"),
        ({"vocab__json": {"a": 0, "b": 0}}, "vocab.json gives the token 'b' the id 0"),
        ({"vocab__json": {"a": "0"}}, "the id '0'"),
        ({"vocab__json": {"a": 1 << 40}}, "ids up to 1099511627776"),
        ({"vocab__json": {}}, "vocab.json has 0 tokens"),
        ({"vocab__json": "[1]"}, "vocab.json does not hold a JSON object"),
        ({"vocab__json": "{"}, "vocab.json is not valid JSON"),
        ({"vocab__json": "[" * 100_000}, "vocab.json is not valid JSON"),
        ({"tokenizer_config__json": {"bos_token": 5}}, "list 5 as a token"),
        ({"added_tokens__json": {"x": -1}}, "use -1 as a token id"),
        ({"added_tokens__json": {"<x>": 10**9}}, "far beyond"),
        ({"added_tokens__json": {"!": 7000}}, "gives '!' the id 0"),
        ({"tokenizer_config__json": {"add_bos_token": True, "bos_token": None}}, "None is not in"),
    ],
)
def test_damage_is_named(
    changes: dict[str, Any], reason: str, byte_pairs: BytePairs, folder: Callable[..., Path]
) -> None:
    vocabulary, merges = byte_pairs
    folder(vocab__json=vocabulary, merges__txt=merges_text(merges))
    with pytest.raises(CheckpointError, match=reason) as raised:
        convert_tokenizer(folder(**changes), {"model_type": "gpt2"})
    assert "\n" not in str(raised.value)


def test_missing_merges_are_named(byte_pairs: BytePairs, folder: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"merges\.txt"):
        convert_tokenizer(folder(vocab__json=byte_pairs[0]), {"model_type": "opt"})
