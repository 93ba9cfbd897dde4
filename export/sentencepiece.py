"""Read SentencePiece model files: the pieces, the algorithm and the normalisation they ask for.

The field numbers are those of ``sentencepiece_model.proto``
(https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from edgedec.errors import CheckpointError
from edgedec.runtime.protobuf import FIXED32, LENGTH, VARINT, fields, signed

SPACE = "\u2581"  # the character that stands for a space inside pieces


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    """How a text is cut into pieces."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place in the model."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class SentencePieceModel:
    """What a SentencePiece model file says, as far as tokenizing depends on it."""

    pieces: tuple[Piece, ...]
    algorithm: Algorithm
    byte_fallback: bool
    space_is_suffix: bool
    charsmap: bytes  # compiled normalisation rules; empty: none
    adds_space_before: bool  # "dummy prefix"
    removes_extra_spaces: bool
    escapes_spaces: bool
    unknown_id: int

    def ids(self, kind: Kind) -> list[int]:
        """Return the ids of all pieces of one kind, ascending."""
        return [index for index, piece in enumerate(self.pieces) if piece.kind is kind]


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a SentencePiece ``.model`` or ``.spm`` file.

    Raises:
        CheckpointError: the file cannot be read, is not a SentencePiece model, or is damaged.
    """
    try:
        return parse_sentencepiece(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"Cannot read the SentencePiece model {path}: {reason}.") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not an intact SentencePiece model ({error}); download it again, or save the"
            " tokenizer as tokenizer.json next to it."
        ) from error


def parse_sentencepiece(data: bytes) -> SentencePieceModel:
    """Parse the bytes of a SentencePiece model.

    Raises:
        ValueError: the bytes are not a SentencePiece model, with the reason.
    """
    pieces: list[Piece] = []
    trainer: dict[int, int | memoryview] = {}
    normalizer: dict[int, int | memoryview] = {}
    for number, value in _messages(data):
        if number == 1:
            pieces.append(_piece(value))
        elif number == 2:
            trainer |= {field: content for field, _, content in fields(value)}
        elif number == 3:
            normalizer |= {field: content for field, _, content in fields(value)}
    unknown = [index for index, piece in enumerate(pieces) if piece.kind is Kind.UNKNOWN]
    if not pieces or len(unknown) != 1:
        raise ValueError(f"{len(pieces)} pieces, {len(unknown)} of them for unknown text")
    charsmap = normalizer.get(2, memoryview(b""))
    if isinstance(charsmap, int):
        raise ValueError("the normalisation rules are a number")
    return SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=Algorithm(_integer(trainer, 3, Algorithm.UNIGRAM)),
        byte_fallback=bool(_integer(trainer, 35, 0)),
        space_is_suffix=bool(_integer(trainer, 24, 0)),
        charsmap=bytes(charsmap),
        adds_space_before=bool(_integer(normalizer, 3, 1)),
        removes_extra_spaces=bool(_integer(normalizer, 4, 1)),
        escapes_spaces=bool(_integer(normalizer, 5, 1)),
        unknown_id=unknown[0],
    )


def _messages(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the nested messages of the outermost one."""
    for number, wire_type, value in fields(data):
        if wire_type == LENGTH and isinstance(value, memoryview):
            yield number, value


def _piece(data: memoryview) -> Piece:
    text, score, kind = "", 0.0, Kind.NORMAL
    for number, wire_type, value in fields(data):
        if isinstance(value, int):
            if number == 3 and wire_type == VARINT:
                kind = Kind(value)
        elif number == 1 and wire_type == LENGTH:
            text = str(value, "utf-8")
        elif number == 2 and wire_type == FIXED32:
            (score,) = struct.unpack("<f", value)
    if not text or not math.isfinite(score):
        raise ValueError(f"a piece with text {text!r} and score {score}")
    return Piece(text, score, kind)


def _integer(message: dict[int, int | memoryview], number: int, default: int) -> int:
    value = message.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} is not a number")
    return signed(value)
