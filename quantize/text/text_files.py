"""Texts to calibrate and to measure on: lines, pairs of source and target, or JSON lines."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgedec.errors import InputError

LARGEST = 1 << 28
"""Bytes of a text, unpacked; calibration uses a few thousand words of it."""
BUILTIN_NAME = "addresses.txt"


@dataclass(frozen=True)
class TextPair:
    """A text, or a text and what is to be made of it.

    Attributes:
        source: what a model reads; never empty.
        target: what it should say; None where the file does not tell.
    """

    source: str
    target: str | None


def read_pairs(path: Path) -> list[TextPair]:
    """Read a text file in UTF-8.

    ``.jsonl``: a JSON object per line, with "source" and perhaps "target", or with "text". Other
    names: a source, a tab and a target per line, where the first line is of this form; else a text
    per line. Blank lines don't count. The name may end with ``.gz``.

    Raises:
        InputError: with the file, and the line at fault.
    """
    pairs = list(_parse(_read(path), path))
    if not pairs:
        raise InputError(f"{path} has no text in it.")
    return pairs


def builtin_text() -> list[TextPair]:
    """English that ships with edgedec (`BUILTIN_NAME`), paragraph by paragraph."""
    text = (files(__package__) / "texts" / BUILTIN_NAME).read_text(encoding="utf-8")
    return [TextPair(line, None) for line in text.splitlines()]


def _read(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"line {line} of {path} is not UTF-8: convert the file.") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}.") from error
    if len(data) > LARGEST:
        raise InputError(f"{path} has more than {LARGEST >> 20} MB: give a part of it.")
    return text


def _parse(text: str, path: Path) -> Iterator[TextPair]:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    # Not splitlines: it also splits where JSON and plain text may hold a separator.
    lines = [(n, line.strip("\r")) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if suffix == ".jsonl":
        return (_from_json(line, f"line {n} of {path}") for n, line in lines)
    if lines and _is_pair(lines[0][1]):
        return (_from_columns(line, f"line {n} of {path}") for n, line in lines)
    return (TextPair(line.strip(), None) for _, line in lines)


def _is_pair(line: str) -> bool:
    columns = line.split("\t")
    return len(columns) == 2 and all(column.strip() for column in columns)


def _from_columns(line: str, place: str) -> TextPair:
    if not _is_pair(line):
        raise InputError(
            f"{place} is not a source, a tab and a target, as the file's first line is."
        )
    source, target = line.split("\t")
    return TextPair(source.strip(), target.strip())


def _from_json(line: str, place: str) -> TextPair:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON: {error}.") from error
    texts = dict(entry) if isinstance(entry, dict) else {}
    source, target = texts.get("source", texts.get("text")), texts.get("target")
    if (
        not isinstance(source, str)
        or not source.strip()
        or not isinstance(target, str | None)
        or (target is not None and not target.strip())
    ):
        raise InputError(
            f'{place} needs a text under "source" and perhaps one under "target", or under "text".'
        )
    return TextPair(source, target)
