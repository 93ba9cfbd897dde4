"""Folders that exports work in until their bundle is complete, and that killed ones leave."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

ABANDONED = 24 * 3600
"""Seconds without a change after which such a folder belongs to nobody."""


def sweep(folder: Path, pattern: str) -> None:
    """Remove the abandoned ones among the folders of ``folder`` that fit a glob pattern."""
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # it was another process's, and is done
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
