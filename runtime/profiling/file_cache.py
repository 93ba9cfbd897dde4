"""Which files the system holds in memory: read them, let it drop them, and see what it did."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgedec.runtime.manifest import MANIFEST
from edgedec.runtime.profiling.record import FileCache

COLD, WARM = 0.01, 0.99
"""Fractions of pages in memory up to and from which files count as cold and warm."""
BLOCK = 1 << 22
MARKS = (MANIFEST, "config.json")
"""Nobody shall have all of a disk read because a name was mistyped."""


def cool(folder: Path) -> FileCache | None:
    """Let the system drop the files of a folder from memory; pages that others map stay.

    Returns:
        What came of it, `state`.
    """
    if hasattr(os, "posix_fadvise"):
        for path in files(folder):
            _drop(path)
    return state(folder)


def warm(folder: Path) -> FileCache | None:
    """Read the files of a folder, so that the system holds them in memory.

    Returns:
        What came of it, `state`; ``warm`` where the system does not tell, as they were just read.
    """
    paths = files(folder)
    if not paths or not all(_read(path) for path in paths):
        return None
    return state(folder) if resident(folder) is not None else "warm"


def state(folder: Path) -> FileCache | None:
    """Whether the files of a folder are in memory: None if not known, or in part."""
    fraction = resident(folder)
    if fraction is None or COLD < fraction < WARM:
        return None
    return "cold" if fraction <= COLD else "warm"


def resident(folder: Path) -> float | None:
    """The fraction of the pages of a folder's files that is in memory; None if not known.

    Linux tells it of files that this user owns or may write, and calls the others resident
    (mincore(2)): of these it is not known.
    """
    mincore = _mincore()
    if mincore is None:
        return None
    pages = held = 0
    for path in files(folder):
        try:
            vector = _pages(path, mincore)
        except (OSError, ValueError):
            return None
        if vector is None:
            return None
        pages += len(vector)
        held += sum(page & 1 for page in vector)
    return held / pages if pages else None


def files(folder: Path) -> list[Path]:
    """Files of a bundle or a checkpoint that are not empty; none of any other folder."""
    with suppress(OSError):
        if any((folder / name).is_file() for name in MARKS):
            return sorted(p for p in folder.iterdir() if p.is_file() and p.stat().st_size)
    return []


def _drop(path: Path) -> None:
    with suppress(OSError), path.open("rb") as stream:
        os.fsync(stream.fileno())  # what is not written yet cannot be dropped
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(path: Path) -> bool:
    with suppress(OSError), path.open("rb", buffering=0) as stream:
        while stream.read(BLOCK):
            pass
        return True
    return False


def _pages(path: Path, mincore: Callable[..., int]) -> bytes | None:
    """A byte for each page, of which the lowest bit says whether it is in memory."""
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if os.geteuid() not in {0, status.st_uid} and not os.access(path, os.W_OK):
            return None
        size = status.st_size
        # A private mapping that may be written has an address in Python; nothing is written.
        with mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
            start = ctypes.c_char.from_buffer(mapped)
            vector = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
            try:
                failed = mincore(
                    ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), vector
                )
            finally:
                del start  # or the mapping could not be closed
            return None if failed else vector.raw


def _mincore() -> Callable[..., int] | None:
    """The C library's function; None where there is none, or none that says the same."""
    if os.name != "posix" or os.uname().sysname != "Linux":
        return None
    try:
        return ctypes.CDLL(None).mincore
    except (OSError, AttributeError):
        return None
