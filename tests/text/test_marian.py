"""Marian: source segmentation, joint ids, as transformers does it with SentencePiece."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from tests.text.conftest import SENTENCES, TEXTS, corpus, train_sentencepiece

from edgedec.errors import CheckpointError
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.runtime.text import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

CONFIG = {"model_type": "marian", "vocab_size": 5000}
CODES = [">>fra<<", ">>deu<<"]


def pieces_of(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


@pytest.fixture(scope="session")
def models() -> tuple[bytes, bytes]:
    """Source: the European languages; target: all of them."""
    european = [line for line in corpus(11) if max(line) < "\u0900"]
    options = {"model_type": "unigram", "bos_id": -1, "unk_id": 0, "eos_id": 1}
    source = train_sentencepiece(european, vocab_size=500, **options)
    return source, train_sentencepiece(corpus(12), vocab_size=700, **options)


@pytest.fixture(scope="session")
def joint(models: tuple[bytes, bytes]) -> dict[str, int]:
    """Ids in an order of their own: eos, unk, pieces of both by text, language codes, pad."""
    pieces = {piece for model in models for piece in pieces_of(model)} - {"</s>", "<unk>"}
    tokens = ["</s>", "<unk>", *sorted(pieces, key=lambda piece: piece[::-1]), *CODES, "<pad>"]
    return {token: index for index, token in enumerate(tokens)}


@pytest.fixture
def checkpoint(
    models: tuple[bytes, bytes], joint: dict[str, int], folder: Callable[..., Path]
) -> Path:
    source, target = models
    return folder(source__spm=source, target__spm=target, vocab__json=joint)


def convert(path: Path) -> Tokenizer:
    files = convert_tokenizer(path, CONFIG)
    assert files is not None
    return Tokenizer.from_bytes(files.tokenizer)


def test_ids_and_texts(
    checkpoint: Path, models: tuple[bytes, bytes], joint: dict[str, int]
) -> None:
    ours: Any = convert(checkpoint)
    theirs = transformers.MarianTokenizer.from_pretrained(checkpoint)
    assert ours.vocab_size == len(joint) == len(theirs)
    known = set("".join(pieces_of(models[0])))
    for text in [*TEXTS, *SENTENCES, *(f"{CODES[0]} {text}" for text in SENTENCES)]:
        (ids,) = ours.encode([text])
        expected = theirs(text)["input_ids"]
        # A character that only the target model knows has a joint id, which transformers finds by
        # its text although SentencePiece called it unknown; here it stays unknown.
        unknown = {joint[c] for c in text if c in joint and c not in known}
        assert ids == [joint["<unk>"] if token in unknown else token for token in expected], text
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True)


def test_decoding_covers_the_target_language(checkpoint: Path, joint: dict[str, int]) -> None:
    ours = convert(checkpoint)
    theirs = transformers.MarianTokenizer.from_pretrained(checkpoint)
    everything = list(range(len(joint)))
    for start in range(0, len(joint), 40):
        ids = everything[start : start + 40]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.id_of(CODES[1]) == joint[CODES[1]]


def test_pieces_without_a_joint_id(
    checkpoint: Path,
    joint: dict[str, int],
    folder: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (whole,) = convert(checkpoint).encode(["The quick"])
    (piece,) = [text for text, index in joint.items() if index == whole[0]]
    assert len(piece) > 2
    smaller = {text: index for text, index in joint.items() if text != piece}
    with caplog.at_level(logging.WARNING):
        ours = convert(folder(vocab__json=smaller))
    assert "1 pieces of source.spm have no id" in caplog.text
    (ids,) = ours.encode(["The quick"])
    assert len(ids) > len(whole)
    assert ours.decode(ids) == "The quick"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target_vocab__json": {"a": 0}}, "separate source and target vocabularies"),
        ({"tokenizer_config__json": {"separate_vocabs": True}}, "separate source and target"),
        ({"vocab__json": {"a": 0}}, r"vocab\.json lacks the eos_token '</s>'"),
        ({"vocab__json": {"</s>": 0}}, r"vocab\.json lacks the unk_token '<unk>'"),
        ({"source__spm": b""}, r"source\.spm is not an intact SentencePiece model"),
    ],
)
def test_refusals(
    changes: dict[str, Any], reason: str, checkpoint: Path, folder: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        convert(folder(**changes))


def test_missing_files(checkpoint: Path) -> None:
    (checkpoint / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        convert(checkpoint)
    (checkpoint / "source.spm").unlink()
    assert convert_tokenizer(checkpoint, CONFIG) is None


def test_a_bpe_model_is_refused(checkpoint: Path, llama_model: bytes) -> None:
    (checkpoint / "source.spm").write_bytes(llama_model)
    with pytest.raises(CheckpointError, match="uses BPE"):
        convert(checkpoint)
