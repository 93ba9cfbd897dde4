"""Vocabularies over bytes: the byte-pair encoding of GPT-2 and its relatives, and ByT5.

GPT-2 writes each byte as one printable character (its space is U+0120), cuts a text into words and
joins characters by the list in ``merges.txt``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgedec.errors import CheckpointError
from edgedec.export import tokenizer_json as tj
from edgedec.export.tokenizer_files import Settings, read_vocabulary, settle

_END_OF_TEXT = "<|endoftext|>"
# Qwen2 cuts digits one by one and keeps line breaks apart from words.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYT5_OFFSET = 3  # <pad>, </s>, <unk>, then the 256 bytes
_BYT5_EXTRA = 125


@dataclass(frozen=True)
class Dialect:
    """How a relative of GPT-2 differs: its special tokens and what goes around a text."""

    names: Mapping[str, str]
    before: str | None = None  # role of the token in front
    after: str | None = None
    optional_bos: bool = True  # whether add_bos_token and add_eos_token are obeyed
    qwen2: bool = False


_GPT2_NAMES = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT)
_BART_NAMES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_OPT_NAMES = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>") | {"pad_token": "<pad>"}
DIALECTS = {
    "gpt2": Dialect(_GPT2_NAMES),
    "opt": Dialect(_OPT_NAMES, before="bos_token"),
    "bart": Dialect(_BART_NAMES, "cls_token", "sep_token", optional_bos=False),
    "qwen2": Dialect({"eos_token": _END_OF_TEXT, "pad_token": _END_OF_TEXT}, qwen2=True),
}


def convert_byte_pairs(settings: Settings, dialect: Dialect) -> bytes:
    """Convert ``vocab.json`` and ``merges.txt``.

    Raises:
        CheckpointError: a file is missing or damaged, or a special token has no id.
    """
    folder = settings.folder
    vocabulary = read_vocabulary(folder / "vocab.json")
    merges = _read_merges(folder / "merges.txt", vocabulary)
    added = settle(settings, vocabulary, dialect.names)
    if not dialect.qwen2 and "mask_token" not in settings.roles and "<mask>" in vocabulary:
        # The mask stands for a word together with the space before it.
        index = vocabulary["<mask>"]
        if index in added and index not in settings.added:
            added[index] = tj.AddedToken("<mask>", strip_left=True)
    taken = {index: token.text for index, token in added.items()}
    vocabulary = {t: i for t, i in vocabulary.items() if taken.get(i, t) == t}
    vocabulary |= {text: index for index, text in taken.items()}
    space = settings.flag("add_prefix_space", False)
    words: list[tj.Part] = [tj.byte_level(space, use_regex=not dialect.qwen2)]
    if dialect.qwen2:
        split = {"type": "Split", "pattern": {"Regex": _QWEN2_WORDS}}
        words.insert(0, {**split, "behavior": "Isolated", "invert": False})
    before, after = _around(settings, dialect)
    return tj.document(
        model=tj.bpe(vocabulary, merges),
        added=added,
        normalizer={"type": "NFC"} if dialect.qwen2 else None,
        pre_tokenizer=tj.pre_tokenizers(words),
        post_processor=tj.template(
            *(
                [_named(settings, dialect, role, vocabulary)] if role else []
                for role in (before, after)
            )
        ),
        decoder=tj.byte_level(),
    )


def convert_byt5(settings: Settings) -> bytes:
    """Make the tokenizer of ByT5, which has no files: id = byte + 3, ``</s>`` (1) appended.

    Bytes that are not UTF-8 vanish from decoded text.

    Raises:
        CheckpointError: the settings list tokens with ids that belong to bytes.
    """
    specials = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = {text: index for index, text in enumerate(specials.values())}
    alphabet = _byte_alphabet()
    vocabulary |= {alphabet[byte]: byte + _BYT5_OFFSET for byte in range(256)}
    count = settings.count("extra_ids")
    # Files written by the tokenizer itself say 0, since the tokens are then listed one by one.
    if not settings.extra_special and not settings.added:
        for number in range(count or _BYT5_EXTRA):
            vocabulary[f"<extra_id_{number}>"] = len(vocabulary)
    added = settle(settings, vocabulary, specials)
    for text, index in vocabulary.items():
        if index >= _BYT5_OFFSET + 256:
            added.setdefault(index, tj.AddedToken(text))
    for index, text in enumerate(specials.values()):
        if index not in settings.added:
            added[index] = tj.AddedToken(text, strip_left=True, strip_right=True)
    vocabulary |= {token.text: index for index, token in added.items()}
    if len(vocabulary) != len(set(vocabulary.values())):
        raise CheckpointError(
            f"The tokenizer settings in {settings.folder} give tokens ids of bytes; correct them."
        )
    return tj.document(
        model=tj.bpe(vocabulary, []),
        added=added,
        pre_tokenizer=tj.byte_level(use_regex=False),
        post_processor=tj.template([], [("</s>", 1)]),
        decoder=tj.decoders([tj.byte_level(), tj.replace("\ufffd", "")]),
    )


def _around(settings: Settings, dialect: Dialect) -> tuple[str | None, str | None]:
    """Return the roles of the tokens before and after a text."""
    if not dialect.optional_bos:
        return dialect.before, dialect.after
    before = settings.flag("add_bos_token", dialect.before is not None)
    after = settings.flag("add_eos_token", dialect.after is not None)
    return "bos_token" if before else None, "eos_token" if after else None


def _named(
    settings: Settings, dialect: Dialect, role: str, vocabulary: Mapping[str, int]
) -> tuple[str, int]:
    token = settings.role(role, dialect.names.get(role))
    if token is None or token.text not in vocabulary:
        raise CheckpointError(
            f"The tokenizer in {settings.folder} puts its {role} around a text, but"
            f" {token.text if token else None!r} is not in vocab.json; correct"
            " tokenizer_config.json."
        )
    return token.text, vocabulary[token.text]


def _read_merges(path: Path, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise CheckpointError(
            f"Cannot read {path} ({error.strerror or error}), which vocab.json needs; download it."
        ) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text; download it again.") from error
    merges = []
    for number, line in enumerate(lines, 1):
        pair = line.rstrip("\r").split(" ")
        if pair == [""] or (number == 1 and line.startswith("#version")):
            continue
        if len(pair) != 2 or "".join(pair) not in vocabulary or not vocabulary.keys() >= set(pair):
            raise CheckpointError(
                f"Line {number} of {path} is not a merge of two tokens of vocab.json; the files do"
                " not belong together or are damaged."
            )
        merges.append((pair[0], pair[1]))
    return merges


def _byte_alphabet() -> list[str]:
    """Return GPT-2's character for each byte: itself where it is printable, else from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
