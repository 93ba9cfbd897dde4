"""Lines in, lines out: the inputs of `-f FILE` and `-`, and outputs that keep to one line each."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar

from edgedec.errors import InputError

Item = TypeVar("Item")

STDIN = "-"
_BOM = b"\xef\xbb\xbf"


def _open(name: str) -> AbstractContextManager[BinaryIO]:
    if name == STDIN:
        return nullcontext(sys.stdin.buffer)
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name} is a folder; -f takes a text file with one input per line.")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"Cannot read {name}: {error.strerror}.") from error


def shown(name: str) -> str:
    """What messages call an input file."""
    return "standard input" if name == STDIN else name


def read_lines(name: str) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file (`-`: standard input) without their line ends.

    Only `\n` and `\r\n` end a line, as for `wc -l`; a byte-order mark at the start is dropped.

    Raises:
        InputError: the file cannot be read, or a line is not valid UTF-8.
    """
    with _open(name) as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{shown(name)}, line {number}: byte {line[error.start]:#04x} at column "
                    f"{error.start + 1} is not UTF-8; convert the file to UTF-8 first."
                ) from error


def count_lines(name: str) -> int | None:
    """Count the lines of a regular file, checking all of it; None for what cannot be read twice.

    Raises:
        InputError: as `read_lines`.
    """
    path = Path(name)
    if name == STDIN or (path.exists() and not path.is_file() and not path.is_dir()):
        return None
    return sum(1 for _ in read_lines(name))


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Group `items` into lists of `size`; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def one_line(text: str) -> str:
    r"""Write the line ends inside `text` as `\n` and `\r`, so that it stays on one line."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def open_output(name: str | None) -> AbstractContextManager[TextIO]:
    """Open the file of `-o` for UTF-8 text; None or `-` is standard output.

    Raises:
        InputError: the file cannot be written.
    """
    if name is None or name == STDIN:
        return nullcontext(sys.stdout)
    try:
        return Path(name).open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"Cannot write {name}: {error.strerror}.") from error
