"""Files of results: all of it or nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgedec.errors import InputError


def check_writable(path: str | Path) -> None:
    """Refuse a file that `write_text` could not write, before there is anything to write.

    Raises:
        InputError: it is a folder, is in none, or may not be written.
    """
    path = Path(path)
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        raise InputError(f"Cannot write {path}: give a file in a folder that exists.")
    try:
        if path.exists():
            with path.open("ab"):
                pass
        if path.is_file() or not path.exists():
            with tempfile.TemporaryDirectory(dir=path.resolve().parent):
                pass
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a file of UTF-8 text, or leave what was there.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # such as /dev/null
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        target = path.resolve()
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            partial = Path(folder) / target.name
            partial.write_text(text, encoding="utf-8", newline="\n")
            partial.replace(target)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from error
