"""Arrays that wait to be read again: in memory while there are few, in files beyond that."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEEP = 1 << 29
"""Bytes that stay in memory."""


class Shelf:
    """Arrays by key; several threads may use it.

    Args:
        folder: an existing one for files; None keeps everything in memory.
        keep: bytes that stay in memory where there is a folder.
    """

    def __init__(self, folder: Path | None, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._kept: dict[Hashable, NDArray[Any] | Path] = {}
        self._size = 0
        self._number = itertools.count()
        self._lock = threading.Lock()

    def put(self, key: Hashable, array: NDArray[Any]) -> None:
        """Keep an array, which nobody may change after that, in the place of an earlier one."""
        self.drop(key)
        with self._lock:
            spool = self._folder is not None and self._size + array.nbytes > self._keep
            if not spool:
                self._size += array.nbytes
                self._kept[key] = array
        if spool:
            assert self._folder is not None
            path = self._folder / f"{next(self._number)}.npy"
            np.save(path, array)
            self._kept[key] = path

    def get(self, key: Hashable) -> NDArray[Any]:
        """The array."""
        kept = self._kept[key]
        if isinstance(kept, Path):
            array: NDArray[Any] = np.load(kept, allow_pickle=False)
            return array
        return kept

    def drop(self, key: Hashable) -> None:
        """Forget an array, if it is there."""
        with self._lock:
            kept = self._kept.pop(key, None)
            if isinstance(kept, np.ndarray):
                self._size -= kept.nbytes
        if isinstance(kept, Path):
            kept.unlink()

    def clear(self) -> None:
        """Forget all arrays."""
        for key in list(self._kept):
            self.drop(key)
