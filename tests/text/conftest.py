"""Vocabularies made on the spot: text is generated, models are trained in a second or two."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "She sold 1,234 sea shells for $56.78 in 1999; nobody knows why!",
    "Der schnelle braune Fuchs springt über den faulen Hund und grüßt.",
    "Où est la bibliothèque ? L'été, c'était déjà fermé.",
    "El niño comió una manzana y después corrió hacia el río.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "素早い茶色の狐がのろまな犬を飛び越える。",
    "敏捷的棕色狐狸跳过了懒狗，今天天气很好。",
    "الثعلب البني السريع يقفز فوق الكلب الكسول.",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "def f(x):\n    return x ** 2  # squared\n",
    "Emoji are fun 🙂🎉 and so are flags 🇫🇷🇯🇵.",
]

# Texts that were not trained on, and everything that tokenizers get wrong.
TEXTS = [
    "",
    "a",
    "Hello world",
    "Translate English to German: How old are you?",
    "  leading, trailing and   inner   spaces  ",
    "tabs\tand\nnew\r\nlines\n\n\n",
    "it's we're I'll they'd DON'T 's",
    "Zażółć gęślą jaźń. Straße ÆØÅ ﬁligature ½ ²",
    "ｆｕｌｌｗｉｄｔｈ　ｔｅｘｔ ①",
    "e\u0301te\u0301 versus été",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 🇺🇳 👍🏽",
    "東京タワー と 한국어 텍스트 và tiếng Việt",
    "สวัสดีชาวโลก ภาษาไทย",
    "Ελληνικά, עברית, हिन्दी, العربية ٣٤٥",
    "x=3.14159; y = [1,2,3]; // C++ && shell $HOME",
    "nul\u0000byte \u0007 bell \u200b zero width \ufeff",
    "\U0010fffe noncharacter \uffff \ue000 private",
    "thisisaverylongwordwithoutanyspacesinitatallwhichgoesonandon" * 5,
    "1 22 333 4444 55555",
    "▁ literal ▁mark",
    "a</s>b <unk> <pad>c <s>",
]


LANGUAGE_CODES = [">>fra<<", ">>deu<<"]


def corpus(seed: int = 0, lines: int = 1500) -> list[str]:
    """Lines of shuffled words of the sentences above."""
    source = random.Random(seed)
    words = [word for sentence in SENTENCES for word in sentence.split()]
    made = [" ".join(source.choices(words, k=source.randint(3, 12))) for _ in range(lines)]
    return SENTENCES * 5 + made


def train_sentencepiece(lines: list[str], **options: Any) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    return model.getvalue()


def pieces_of(model: bytes) -> list[str]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


@pytest.fixture(scope="session")
def t5_model() -> bytes:
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    return train_sentencepiece(corpus(), model_type="unigram", vocab_size=700, **ids)


@pytest.fixture(scope="session")
def mt5_model() -> bytes:
    return train_sentencepiece(
        corpus(1),
        model_type="unigram",
        vocab_size=900,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        byte_fallback=True,
        character_coverage=0.98,
        user_defined_symbols=[f"▁<extra_id_{number}>" for number in range(3)],
    )


@pytest.fixture(scope="session")
def llama_model() -> bytes:
    return train_sentencepiece(
        corpus(2),
        model_type="bpe",
        vocab_size=1000,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
    )


@pytest.fixture(scope="session")
def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A GPT-2 vocabulary without special tokens, and its merges."""
    import tokenizers

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=800,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    model.train_from_iterator(corpus(3), trainer)
    content = json.loads(model.to_str())["model"]
    return content["vocab"], [tuple(pair) for pair in content["merges"]]


@pytest.fixture(scope="session")
def marian_models() -> tuple[bytes, bytes]:
    """Source: the European languages; target: all of them."""
    european = [line for line in corpus(11) if max(line) < "\u0900"]
    options = {"model_type": "unigram", "bos_id": -1, "unk_id": 0, "eos_id": 1}
    source = train_sentencepiece(european, vocab_size=500, **options)
    return source, train_sentencepiece(corpus(12), vocab_size=700, **options)


@pytest.fixture(scope="session")
def marian_joint(marian_models: tuple[bytes, bytes]) -> dict[str, int]:
    """Ids in an order of their own: eos, unk, pieces of both by text, language codes, pad."""
    pieces = {piece for model in marian_models for piece in pieces_of(model)} - {"</s>", "<unk>"}
    backwards = sorted(pieces, key=lambda piece: piece[::-1])
    tokens = ["</s>", "<unk>", *backwards, *LANGUAGE_CODES, "<pad>"]
    return {token: index for index, token in enumerate(tokens)}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write files into a fresh checkpoint folder: bytes as they are, text, or objects as JSON."""

    def write(**files: Any) -> Path:
        for name, content in files.items():
            path = tmp_path / name.replace("__", ".")
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                path.write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def merges_text(merges: list[tuple[str, str]]) -> str:
    return "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges)
