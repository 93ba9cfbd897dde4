"""The checkpoint's tokenizer: letters in, ARPAbet phonemes out, one shared vocabulary."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from g2p.data import GRAPHEMES

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"


def build_tokenizer(phonemes: Iterable[str]) -> Tokenizer:
    """A tokenizer that spells a word and ends it with ``</s>``.

    Text is lower-cased and stripped of accents first, so it can only ever become letters:
    phonemes are looked up by ``phoneme_ids``, and read back by ``Tokenizer.decode``.
    """
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNK, *GRAPHEMES, *phonemes])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, vocabulary[EOS])]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (PAD, EOS, UNK)]
    )
    return tokenizer


def grapheme_ids(tokenizer: Tokenizer, word: str) -> list[int]:
    """The ids of a word's letters, with ``</s>``."""
    ids: list[int] = tokenizer.encode(word).ids
    return ids


def phoneme_ids(tokenizer: Tokenizer, pronunciation: str) -> list[int]:
    """The ids of phonemes joined by spaces, with ``</s>``."""
    ids = []
    for token in [*pronunciation.split(), EOS]:
        token_id = tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(f"unknown phoneme {token!r} in {pronunciation!r}")
        ids.append(token_id)
    return ids
