"""Marian: source segmentation, joint ids, as transformers does it with SentencePiece."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tests.text.conftest import LANGUAGE_CODES, SENTENCES, TEXTS, pieces_of

from edgedec.errors import CheckpointError
from edgedec.export.tokenizer import convert_tokenizer
from edgedec.runtime.text import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

CONFIG = {"model_type": "marian", "vocab_size": 5000}


@pytest.fixture
def checkpoint(
    marian_models: tuple[bytes, bytes], marian_joint: dict[str, int], folder: Callable[..., Path]
) -> Path:
    source, target = marian_models
    return folder(source__spm=source, target__spm=target, vocab__json=marian_joint)


def convert(path: Path) -> Tokenizer:
    files = convert_tokenizer(path, CONFIG)
    assert files is not None
    return Tokenizer.from_bytes(files.tokenizer)


def test_ids_and_texts(
    checkpoint: Path, marian_models: tuple[bytes, bytes], marian_joint: dict[str, int]
) -> None:
    ours: Any = convert(checkpoint)
    theirs = transformers.MarianTokenizer.from_pretrained(checkpoint)
    assert ours.vocab_size == len(marian_joint) == len(theirs)
    known = set("".join(pieces_of(marian_models[0])))
    for text in [*TEXTS, *SENTENCES, *(f"{LANGUAGE_CODES[0]} {text}" for text in SENTENCES)]:
        (ids,) = ours.encode([text])
        expected = theirs(text)["input_ids"]
        # A character that only the target model knows has a joint id, which transformers finds by
        # its text although SentencePiece called it unknown; here it stays unknown.
        unknown = {marian_joint[c] for c in text if c in marian_joint and c not in known}
        assert ids == [
            marian_joint["<unk>"] if token in unknown else token for token in expected
        ], text
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True)


def test_decoding_covers_the_target_language(
    checkpoint: Path, marian_joint: dict[str, int]
) -> None:
    ours = convert(checkpoint)
    theirs = transformers.MarianTokenizer.from_pretrained(checkpoint)
    everything = list(range(len(marian_joint)))
    for start in range(0, len(marian_joint), 40):
        ids = everything[start : start + 40]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.id_of(LANGUAGE_CODES[1]) == marian_joint[LANGUAGE_CODES[1]]


def test_pieces_without_a_joint_id(
    checkpoint: Path,
    marian_joint: dict[str, int],
    folder: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (whole,) = convert(checkpoint).encode(["The quick"])
    (piece,) = [text for text, index in marian_joint.items() if index == whole[0]]
    assert len(piece) > 2
    smaller = {text: index for text, index in marian_joint.items() if text != piece}
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


def test_what_transformers_saves(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    saved = tmp_path_factory.mktemp("saved")
    transformers.MarianTokenizer.from_pretrained(checkpoint).save_pretrained(saved)
    assert convert(saved).encode(SENTENCES) == convert(checkpoint).encode(SENTENCES)
