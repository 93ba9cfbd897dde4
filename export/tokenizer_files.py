"""The small JSON files next to a vocabulary: which tokens are special, and what is added to a text.

``tokenizer_config.json`` names the tokenizer class and its options, ``special_tokens_map.json`` the
special tokens by role, ``added_tokens.json`` the ids of tokens outside the vocabulary. Newer
checkpoints keep the latter two in ``added_tokens_decoder`` of the first, which then wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedec.errors import CheckpointError
from edgedec.export.tokenizer_json import AddedToken

# New tokens get their ids in this order.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_LARGEST_COUNT = 100_000

PLACEHOLDER = "\U0010fffe"  # a noncharacter: no text holds it, so no text matches a piece with it


@dataclass(frozen=True)
class Settings:
    """What the files beside the vocabulary say; ``kind`` is the class of the tokenizer."""

    folder: Path
    kind: str
    options: Mapping[str, Any]
    roles: Mapping[str, AddedToken | None]
    extra_special: tuple[AddedToken, ...]
    added: Mapping[int, AddedToken]

    def role(self, name: str, default: str | None) -> AddedToken | None:
        """Return the token with a role; the default counts where no file mentions the role."""
        if name in self.roles:
            return self.roles[name]
        return AddedToken(default) if default is not None else None

    def flag(self, name: str, default: bool) -> bool:
        """Return a yes-or-no option; null means the default."""
        value = self.options.get(name)
        return default if value is None else bool(value)

    def count(self, name: str) -> int | None:
        """Return a number of tokens, or None where the files do not say.

        Raises:
            CheckpointError: the value is not a sensible number.
        """
        value = self.options.get(name)
        if value is None or (type(value) is int and 0 <= value <= _LARGEST_COUNT):
            return value
        raise CheckpointError(
            f"{self.folder / 'tokenizer_config.json'} says {name} = {value!r}, which is not a"
            f" number from 0 to {_LARGEST_COUNT}; correct it."
        )


def read_settings(folder: Path, config: Mapping[str, Any]) -> Settings:
    """Read the settings files of a checkpoint folder; all of them may be missing.

    Raises:
        CheckpointError: a file is not what its name says.
    """
    options = _optional(folder / "tokenizer_config.json")
    kind = options.get("tokenizer_class") or config.get("tokenizer_class") or ""
    named = dict(options)
    added = {}
    decoder = options.get("added_tokens_decoder")
    if decoder is None:
        named |= _optional(folder / "special_tokens_map.json")
    roles = {name: _token(folder, value) for name, value in named.items() if name in ROLES}
    extra = named.get("additional_special_tokens") or named.get("extra_special_tokens") or []
    if isinstance(extra, dict):
        extra = list(extra.values())
    special = {token.text for token in roles.values() if token is not None}
    extra_special = tuple(token for value in extra if (token := _token(folder, value)) is not None)
    special |= {token.text for token in extra_special}
    if decoder is None:
        for text, index in _optional(folder / "added_tokens.json").items():
            added[_index(folder, index)] = AddedToken(text, special=text in special)
    else:
        for index, value in decoder.items():
            token = _token(folder, value, special=text_of(value) in special)
            if token is not None:
                added[_index(folder, index)] = token
    return Settings(folder, str(kind).removesuffix("Fast"), options, roles, extra_special, added)


def settle(
    settings: Settings, vocabulary: Mapping[str, int], defaults: Mapping[str, str]
) -> dict[int, AddedToken]:
    """Give every added and special token its id.

    Ids come from the settings, else from the vocabulary, else they follow the highest one. Default
    special tokens (role -> text) are used only where the vocabulary has them.

    Raises:
        CheckpointError: settings and vocabulary disagree about an id.
    """
    added = dict(settings.added)
    known = {token.text: index for index, token in added.items()}
    for text, index in known.items():
        if vocabulary.get(text, index) != index:
            raise CheckpointError(
                f"The tokenizer in {settings.folder} gives {text!r} the id {vocabulary[text]} in"
                f" its vocabulary and {index} in its settings; use files that belong together."
            )
    if max(added, default=0) > _highest_id(len(vocabulary)):
        raise CheckpointError(
            f"The tokenizer settings in {settings.folder} use the token id {max(added)}, far beyond"
            " the vocabulary; correct them."
        )
    wanted = [
        token
        for role in ROLES
        if (token := settings.role(role, defaults.get(role))) is not None
        and (role in settings.roles or token.text in vocabulary)
    ]
    following = max([*vocabulary.values(), *added], default=-1) + 1
    for token in [*wanted, *settings.extra_special]:
        if token.text in known:
            continue
        index = vocabulary.get(token.text, following)
        following += index == following
        known[token.text] = index
        added[index] = token
    return added


def text_of(value: object) -> str | None:
    """Return the text of a token that is stored as a string or as an object with ``content``."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object; download it again.")
    return value


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read a ``vocab.json``: token -> id, each id used once.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    content = read_json_object(path)
    ids = set()
    for text, index in content.items():
        if not isinstance(index, int) or isinstance(index, bool) or index < 0 or index in ids:
            raise CheckpointError(
                f"{path} gives the token {text!r} the id {index!r}, which is no id or used twice;"
                " download it again."
            )
        ids.add(index)
    if not ids or max(ids) > _highest_id(len(ids)):
        raise CheckpointError(
            f"{path} has {len(ids)} tokens and ids up to {max(ids, default=-1)}; download it again."
        )
    return content


def _highest_id(tokens: int) -> int:
    """Ids leave gaps, but a damaged file must not make us fill millions of them."""
    return 4 * tokens + 100_000


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.exists() else {}


def _token(folder: Path, value: object, special: bool = True) -> AddedToken | None:
    if value is None:
        return None
    text = text_of(value)
    if not text:
        raise CheckpointError(
            f"The tokenizer settings in {folder} list {value!r} as a token; correct them."
        )
    facts: dict[str, Any] = value if isinstance(value, dict) else {}
    return AddedToken(
        text,
        special=bool(facts.get("special", special)) or special,
        strip_left=bool(facts.get("lstrip", False)),
        strip_right=bool(facts.get("rstrip", False)),
        single_word=bool(facts.get("single_word", False)),
    )


def _index(folder: Path, value: object) -> int:
    try:
        index = int(value) if isinstance(value, int | str) else -1
    except ValueError:
        index = -1
    if index < 0:
        raise CheckpointError(
            f"The tokenizer settings in {folder} use {value!r} as a token id; correct them."
        )
    return index
