"""SentencePiece models: same ids as SentencePiece itself and as transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from tests.text.conftest import SENTENCES, TEXTS, corpus, train_sentencepiece

from edgedec.errors import CheckpointError
from edgedec.export.sentencepiece import Kind, parse_sentencepiece
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.runtime.text import Tokenizer

SPECIAL = "a</s>b <unk> <pad>c <s>"
PLAIN = [text for text in TEXTS if text != SPECIAL] + SENTENCES + corpus(9, 50)[-50:]
T5 = {"model_type": "t5", "vocab_size": 5000}
LLAMA = {"model_type": "llama", "vocab_size": 5000}


def convert(folder: Path, config: dict[str, Any]) -> Tokenizer:
    files = convert_tokenizer(folder, config)
    assert files is not None
    return Tokenizer.from_bytes(files.tokenizer)


def processor(model: bytes) -> Any:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def parse_with_protobuf(data: bytes) -> Any:
    messages: Any = sentencepiece_model_pb2
    return messages.ModelProto.FromString(data)


@pytest.mark.parametrize("name", ["t5_model", "mt5_model", "llama_model"])
def test_the_reader_agrees_with_protobuf(name: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(name)
    ours = parse_sentencepiece(data)
    theirs = parse_with_protobuf(data)
    assert [(p.text, p.score, int(p.kind)) for p in ours.pieces] == [
        (p.piece, p.score, p.type) for p in theirs.pieces
    ]
    assert ours.charsmap == theirs.normalizer_spec.precompiled_charsmap
    assert int(ours.algorithm) == theirs.trainer_spec.model_type
    assert ours.byte_fallback == theirs.trainer_spec.byte_fallback
    assert ours.unknown_id == theirs.trainer_spec.unk_id
    assert ours.adds_space_before == theirs.normalizer_spec.add_dummy_prefix
    assert ours.removes_extra_spaces == theirs.normalizer_spec.remove_extra_whitespaces


def test_t5(t5_model: bytes, folder: Callable[..., Path]) -> None:
    path = folder(spiece__model=t5_model)
    ours, theirs = convert(path, T5), transformers.T5Tokenizer.from_pretrained(path)
    reference = processor(t5_model)
    assert ours.vocab_size == len(theirs) == reference.get_piece_size() + 100
    assert ours.id_of("<extra_id_0>") == ours.vocab_size - 1
    assert ours.id_of("<extra_id_99>") == reference.get_piece_size()
    encoded = ours.encode(PLAIN)
    assert encoded == [[*reference.encode(text), 1] for text in PLAIN]
    with_special = [*TEXTS, SPECIAL, "fill <extra_id_0> in<extra_id_17>, <extra_id_99>"]
    for text in with_special:
        (ids,) = ours.encode([text])
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_t5_settings(t5_model: bytes, folder: Callable[..., Path]) -> None:
    size = processor(t5_model).get_piece_size()
    path = folder(spiece__model=t5_model, tokenizer_config__json={"extra_ids": 7})
    assert convert(path, T5).vocab_size == size + 7
    # Without a word about sentinels there are 100, where the model has room for them.
    path = folder(tokenizer_config__json={})
    assert convert(path, {**T5, "vocab_size": size + 99}).vocab_size == size


def test_mt5_falls_back_to_bytes(mt5_model: bytes, folder: Callable[..., Path]) -> None:
    # transformers 5 has no byte fallback here and writes <unk>; SentencePiece is the reference.
    path = folder(spiece__model=mt5_model, tokenizer_config__json={"extra_ids": 0})
    ours, reference = convert(path, {**T5, "model_type": "mt5"}), processor(mt5_model)
    texts = [*PLAIN, "one <extra_id_0> two<extra_id_2>, <extra_id_9>"]
    assert ours.encode(texts) == [[*reference.encode(text), 1] for text in texts]
    for text in PLAIN:
        ids = reference.encode(text)
        assert ours.decode(ids) == reference.decode(ids)


@pytest.mark.parametrize("legacy", [True, False])
def test_llama(legacy: bool, llama_model: bytes, folder: Callable[..., Path]) -> None:
    options = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True}
    path = folder(tokenizer__model=llama_model, tokenizer_config__json=options)
    ours, theirs = convert(path, LLAMA), transformers.LlamaTokenizer.from_pretrained(path)
    reference = processor(llama_model)
    for text in PLAIN:
        (ids,) = ours.encode([text])
        # Without "legacy", one leading space is swallowed; SentencePiece keeps it.
        leading = text.startswith((" ", "▁"))
        if legacy or not leading:
            assert ids == [1, *reference.encode(text)]
        if not legacy or not leading:
            assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    # Only "legacy" puts a space after special tokens.
    for text in [SPECIAL, "<s>twice</s> ended <unk>", "</s>first"]:
        (ids,) = ours.encode([text])
        assert (ids == theirs(text)["input_ids"]) == (not legacy or text == "</s>first")


@pytest.mark.parametrize(("bos", "eos"), [(False, False), (True, True), (False, True)])
def test_llama_settings(
    bos: bool, eos: bool, llama_model: bytes, folder: Callable[..., Path]
) -> None:
    options = {"add_bos_token": bos, "add_eos_token": eos, "pad_token": "<pad>"}
    path = folder(
        tokenizer__model=llama_model,
        tokenizer_config__json=options,
        added_tokens__json={"<pad>": 1000, "<|im_end|>": 1003},
        special_tokens_map__json={"eos_token": {"content": "<|im_end|>", "lstrip": False}},
    )
    ours = convert(path, LLAMA)
    (ids,) = ours.encode(["hi<|im_end|>"])
    assert ids[0] == 1 if bos else ids[0] != 1
    assert ids.count(1003) == 1 + eos
    assert ours.encode([""]) == [[1] * bos + [1003] * eos]
    assert ours.decode(ids) == "hi"
    assert ours.id_of("<pad>") == 1000
    assert ours.vocab_size == 1004


def test_a_llama_with_a_unigram_model(t5_model: bytes, folder: Callable[..., Path]) -> None:
    model = train_sentencepiece(corpus(5), model_type="unigram", vocab_size=500, byte_fallback=True)
    path = folder(tokenizer__model=model, tokenizer_config__json={"legacy": True})
    ours, reference = convert(path, LLAMA), processor(model)
    assert ours.encode(PLAIN) == [[1, *reference.encode(text)] for text in PLAIN]


def test_the_same_files_give_the_same_bytes(t5_model: bytes, folder: Callable[..., Path]) -> None:
    path = folder(spiece__model=t5_model)
    first, second = (convert_tokenizer(path, T5) for _ in range(2))
    assert first == second
    assert first is not None
    assert first.config is None
    assert json.loads(first.tokenizer)["version"] == "1.0"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: setattr(m.trainer_spec, "model_type", 3), "WORD"),
        (lambda m: setattr(m.trainer_spec, "treat_whitespace_as_suffix", True), "end of words"),
        (lambda m: setattr(m.normalizer_spec, "escape_whitespaces", False), "keeps spaces"),
        (lambda m: setattr(m.pieces[40], "type", 5), "unused"),
        (lambda m: setattr(m.pieces[40], "piece", m.pieces[41].piece), "twice"),
        (lambda m: setattr(m.pieces[2], "type", 1), "0 of them for unknown"),
        (lambda m: setattr(m.pieces[40], "piece", ""), "a piece with text ''"),
        (lambda m: setattr(m.pieces[40], "score", float("nan")), "score nan"),
        (lambda m: m.ClearField("pieces"), "0 pieces"),
        (lambda m: setattr(m.normalizer_spec, "precompiled_charsmap", b"\x07garbage"), "usable"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    change: Callable[[Any], None], reason: str, t5_model: bytes, folder: Callable[..., Path]
) -> None:
    model = parse_with_protobuf(t5_model)
    change(model)
    path = folder(spiece__model=model.SerializeToString())
    with pytest.raises(CheckpointError, match=reason) as raised:
        convert_tokenizer(path, T5)
    assert "spiece.model" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_kinds_are_told_apart(mt5_model: bytes) -> None:
    model = parse_sentencepiece(mt5_model)
    assert len(model.ids(Kind.BYTE)) == 256
    assert len(model.ids(Kind.USER_DEFINED)) == 3
    assert model.ids(Kind.CONTROL) == [0, 1]
