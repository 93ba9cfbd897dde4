"""The parts of a ``tokenizer.json``, as plain dictionaries.

Writing the document ourselves, instead of asking the ``tokenizers`` package to, keeps the bytes the
same for the same checkpoint whatever version of that package is installed.
Format: https://huggingface.co/docs/tokenizers (version "1.0" of the file).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Part = dict[str, Any]


@dataclass(frozen=True)
class AddedToken:
    """A token that is recognised in a text before the model sees it.

    ``special`` tokens are left out of decoded text; ``strip_left`` and ``strip_right`` swallow the
    white space beside the token.
    """

    text: str
    special: bool = True
    strip_left: bool = False
    strip_right: bool = False
    single_word: bool = False


def document(
    *,
    model: Part,
    added: Mapping[int, AddedToken],
    normalizer: Part | None = None,
    pre_tokenizer: Part | None = None,
    post_processor: Part | None = None,
    decoder: Part | None = None,
) -> bytes:
    """Return the bytes of a ``tokenizer.json``; the model must know every added token.

    A reader numbers tokens that the model does not know itself, in order; ids with gaps survive
    only as entries of the model.
    """
    tokens = [
        {
            "id": index,
            "content": token.text,
            "single_word": token.single_word,
            "lstrip": token.strip_left,
            "rstrip": token.strip_right,
            # A normalizer that puts a space in front would otherwise change the token as well.
            "normalized": False,
            "special": token.special,
        }
        for index, token in sorted(added.items())
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def unigram(pieces: Iterable[tuple[str, float]], unknown_id: int, byte_fallback: bool) -> Part:
    """Return a unigram model; the id of a piece is its place."""
    return {
        "type": "Unigram",
        "unk_id": unknown_id,
        "vocab": [[text, score] for text, score in pieces],
        "byte_fallback": byte_fallback,
    }


def bpe(
    vocabulary: Mapping[str, int],
    merges: Iterable[tuple[str, str]],
    unknown: str | None = None,
    byte_fallback: bool = False,
) -> Part:
    """Return a byte-pair model; the earlier a merge stands, the earlier it is done."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": unknown is not None,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": dict(sorted(vocabulary.items(), key=lambda entry: (entry[1], entry[0]))),
        "merges": [list(pair) for pair in merges],
    }


def normalizers(parts: Sequence[Part]) -> Part | None:
    """Chain normalizers."""
    return _chain(parts, "normalizers")


def pre_tokenizers(parts: Sequence[Part]) -> Part | None:
    """Chain pre-tokenizers."""
    return _chain(parts, "pretokenizers")


def decoders(parts: Sequence[Part]) -> Part | None:
    """Chain decoders."""
    return _chain(parts, "decoders")


def replace(old: str, new: str) -> Part:
    """Return the normalizer, or decoder, that replaces a string."""
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def replace_pattern(pattern: str, new: str) -> Part:
    """Return the normalizer, or decoder, that replaces what a regular expression matches."""
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": new}


def byte_level(add_prefix_space: bool = False, use_regex: bool = True) -> Part:
    """Return the pre-tokenizer, or decoder, of GPT-2: one printable character per byte."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def template(before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]) -> Part | None:
    """Return the post-processor that puts special tokens ``(text, id)`` around a text."""
    if not before and not after:
        return None
    sides = [
        [{"SpecialToken": {"id": t, "type_id": 0}} for t, _ in side] for side in (before, after)
    ]
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    single = [*sides[0], first, *sides[1]]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *sides[0], second, *sides[1]],
        "special_tokens": {
            text: {"id": text, "ids": [index], "tokens": [text]}
            for text, index in sorted({*before, *after})
        },
    }


def _chain(parts: Sequence[Part], name: str) -> Part | None:
    if len(parts) > 1:
        return {"type": "Sequence", name: list(parts)}
    return parts[0] if parts else None
