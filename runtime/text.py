"""Text in, text out: the bundle's ``tokenizer.json`` through the ``tokenizers`` package.

Export turns every kind of vocabulary into a ``tokenizer.json`` (see ``export/tokenizer.py``), so
this file knows one format and nothing about model families.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgedec.errors import BundleError, InputError, MissingDependencyError

if TYPE_CHECKING:
    import tokenizers

T = TypeVar("T")

_REPLACEMENT = "\ufffd"  # what decoders write for bytes that are not, or not yet, UTF-8
_LARGEST_ID = (1 << 32) - 1  # tokenizers stores ids as 32-bit unsigned integers
_WINDOW = 16  # tokens the stream decoder looks back at before it forgets the older ones
_TAIL = 4  # tokens it never forgets: a character has at most four bytes, a token at least one
_ANCHOR_SEARCH = 4096  # ids looked at for a token that decodes to plain visible text


class Tokenizer:
    """Encodes texts to token ids and decodes ids to text, as the checkpoint's own tokenizer does.

    Safe to share between threads; a :class:`StreamDecoder` is not.
    """

    def __init__(self, backend: tokenizers.Tokenizer, name: str) -> None:
        """Wrap ``backend``, which becomes ours; ``name`` is the file to mention in errors."""
        # What a training script left in the file must not cut or pad the requests of users.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._name = name

    @classmethod
    def open(cls, path: Path) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            BundleError: the file is missing, unreadable, or not a tokenizer.
            MissingDependencyError: the ``tokenizers`` package is not installed.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise BundleError(f"Cannot read the tokenizer {path}: {reason}.") from error
        try:
            return cls.from_bytes(data, str(path))
        except ValueError as error:
            raise BundleError(
                f"The tokenizer {path} cannot be used ({error}); export the checkpoint again."
            ) from error

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "tokenizer.json") -> Tokenizer:
        """Read the content of a ``tokenizer.json``; ``name`` is what errors call it.

        Raises:
            ValueError: the content is not a tokenizer, with the reason.
            MissingDependencyError: the ``tokenizers`` package is not installed.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise MissingDependencyError(
                "Text needs the 'tokenizers' package: pip install tokenizers."
            ) from error
        return cls(_guarded(tokenizers.Tokenizer.from_buffer, data), name)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, neither cut nor padded.

        An empty text yields the special tokens alone, possibly none.

        Raises:
            InputError: something is not a string, or not valid Unicode (a lone surrogate).
            BundleError: the tokenizer fails on a valid text, so its file must be damaged.
        """
        if isinstance(texts, str):
            raise InputError(
                "Tokenizer.encode takes a list of texts; wrap a single text in a list."
            )
        batch = list(texts)
        for index, text in enumerate(batch):
            _check_text(index, text)
        try:
            if len(batch) == 1:
                return [_guarded(self._backend.encode, batch[0]).ids]
            return [encoding.ids for encoding in _guarded(self._backend.encode_batch_fast, batch)]
        except ValueError as error:
            raise self._damaged(error) from error

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens and ids without a token left out.

        Raises:
            InputError: an id is negative or above 2**32 - 1.
            BundleError: the tokenizer's file must be damaged.
        """
        plain = [int(token) for token in ids]
        for token in plain:
            if not 0 <= token <= _LARGEST_ID:
                raise InputError(f"{token} is not a token id: ids run from 0 to {_LARGEST_ID}.")
        return self._decode(plain)

    def decoder(self) -> StreamDecoder:
        """Return a decoder for one text that arrives token by token."""
        return StreamDecoder(self)

    @cached_property
    def vocab_size(self) -> int:
        """The highest token id plus one; a model's embedding may have more rows than that."""
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def id_of(self, token: str) -> int | None:
        """Return the id of a token as the vocabulary spells it, or None."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def _decode(self, ids: list[int]) -> str:
        try:
            text: str = _guarded(self._backend.decode, ids)  # skips special tokens by default
        except ValueError as error:
            raise self._damaged(error) from error
        return text

    def _damaged(self, error: ValueError) -> BundleError:
        return BundleError(
            f"The tokenizer {self._name} fails ({error}); export the checkpoint again."
        )

    def _is_silent(self, token: int) -> bool:
        """Whether decoding leaves the id out: a special token, or no token at all."""
        return token in self._special or self._backend.id_to_token(token) is None

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self._backend.get_added_tokens_decoder()
        return frozenset(token for token, facts in added.items() if facts.special)

    @cached_property
    def _byte_pieces(self) -> frozenset[int]:
        """Ids of the pieces ``<0x00>`` .. ``<0xFF>`` where the decoder joins them to characters."""
        decoder = self._backend.decoder
        state = json.loads(decoder.__getstate__()) if decoder is not None else None
        if "ByteFallback" not in {part.get("type") for part in _flatten(state)}:
            return frozenset()
        ids = (self._backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        return frozenset(token for token in ids if token is not None)

    @cached_property
    def _anchor(self) -> int | None:
        """A token of plain visible text, which can stand for any text before a window."""
        for token in range(min(self._backend.get_vocab_size(), _ANCHOR_SEARCH)):
            if self._is_silent(token) or token in self._byte_pieces:
                continue
            text = self._decode([token])
            if text.isascii() and text.isalnum() and self._decode([token] * 2).startswith(text):
                return token
        return None


class StreamDecoder:
    """Turns tokens into text as they arrive.

    The chunks, joined, are what :meth:`Tokenizer.decode` returns for all the tokens together, and
    no chunk ends inside a character: the bytes of a character whose tokens have not all arrived,
    and a run of SentencePiece byte pieces that may still go on, are held back. Each call decodes a
    window of at most about 16 tokens, however long the text has become.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start an empty text."""
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._sent = 0  # characters of the window's text that are done with
        self._broken = 0  # replacement characters among them that have not been handed out

    def push(self, token: int) -> str:
        """Add one token and return the text that is certain now, which may be empty.

        Raises:
            InputError, BundleError: as :meth:`Tokenizer.decode`.
        """
        token = int(token)
        tokenizer = self._tokenizer
        if not 0 <= token <= _LARGEST_ID:
            raise InputError(f"{token} is not a token id: ids run from 0 to {_LARGEST_ID}.")
        if tokenizer._is_silent(token):
            return ""
        self._window.append(token)
        if token in tokenizer._byte_pieces:
            # One bad byte turns the whole run into replacement characters: nothing is certain yet.
            return ""
        text = tokenizer._decode(self._window)
        certain = len(text) - text.endswith(_REPLACEMENT)  # half a character decodes to one of them
        fresh = text[self._sent : certain]
        self._sent = max(self._sent, certain)
        # Broken bytes are certain as well, but wait for company: no chunk ends in their sign.
        visible = fresh.rstrip(_REPLACEMENT)
        chunk = _REPLACEMENT * self._broken + visible if visible else ""
        self._broken = len(fresh) - len(visible) + (0 if visible else self._broken)
        if len(self._window) > _WINDOW:
            self._forget(text)
        return chunk

    def flush(self) -> str:
        """Return what was held back and start over with an empty text."""
        text = self._tokenizer._decode(self._window) if self._window else ""
        chunk = _REPLACEMENT * self._broken + text[self._sent :]
        self._window, self._sent, self._broken = [], 0, 0
        return chunk

    def _forget(self, text: str) -> None:
        """Drop the older tokens of the window, whose text is ``text``, if that changes nothing.

        An anchor takes their place because many decoders treat the first token differently. A cut
        inside a character shows in the text, so the first cut that does not show is taken.
        """
        anchor = self._tokenizer._anchor
        if anchor is None:
            return
        skip = len(self._tokenizer._decode([anchor]))
        for start in range(len(self._window) - _TAIL, _TAIL, -1):
            window = [anchor, *self._window[start:]]
            shorter = self._tokenizer._decode(window)
            unsent = len(text) - self._sent
            if text.endswith(shorter[skip:]) and unsent <= len(shorter) - skip:
                self._window, self._sent = window, len(shorter) - unsent
                return


def _check_text(index: int, text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"Input {index} is {type(text).__name__}, not text.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"Input {index} is not valid Unicode: character {error.start} is the lone surrogate"
            f" U+{ord(text[error.start]):04X}; remove it or decode the text with errors='replace'."
        ) from error


def _flatten(decoder: Any) -> list[dict[str, Any]]:
    """Return a decoder's description and those of its parts."""
    if not isinstance(decoder, dict):
        return []
    parts = decoder.get("decoders") or []
    return [decoder, *(inner for part in parts for inner in _flatten(part))]


def _guarded(call: Callable[..., T], *arguments: object) -> T:
    """Call into ``tokenizers`` and turn whatever it raises into a ``ValueError``.

    A Rust panic arrives as ``pyo3_runtime.PanicException``, which is no ``Exception`` and cannot be
    imported, so it is told apart by its name.
    """
    try:
        return call(*arguments)
    except Exception as error:
        raise ValueError(_first_line(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
