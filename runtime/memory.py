"""Refuse work that does not fit into memory, before the system kills the process for it."""

from __future__ import annotations

import os
from pathlib import Path

from edgedec.errors import InputError


def available_bytes() -> int | None:
    """Memory that can be used without swapping, None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def require(needed: int, what: str, way_out: str) -> None:
    """Raise InputError if ``needed`` bytes are more than there are.

    A runtime cannot find out by trying: systems that overcommit grant every allocation and end the
    process when the memory is touched.
    """
    free = available_bytes()
    if free is not None and needed > free:
        raise InputError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are "
            f"available: {way_out}."
        )
