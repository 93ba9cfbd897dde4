"""Memory of this process, as the system counts it."""

from __future__ import annotations

import sys
from pathlib import Path

from edgedec.runtime.profiling.record import Memory
from edgedec.runtime.profiling.system import PROC, read

KIB = 1024
COUNTERS = ("VmHWM", "VmRSS", "RssFile", "RssAnon", "RssShmem")


def process_memory(proc: Path = PROC) -> Memory:
    """What this process has in memory, and the most that it ever had.

    Shared memory counts as anonymous: the system cannot drop it.

    Args:
        proc: where the system tells.
    """
    sizes = {}
    for line in (read(proc / "self" / "status") or "").splitlines():
        name, _, value = line.partition(":")
        if name in COUNTERS:
            sizes[name] = int(value.split()[0]) * KIB / 1e6
    # Not of getrusage where there is VmHWM: that one also counts whoever started this process.
    peak = sizes.get("VmHWM", _peak() if not sizes else None)
    anonymous = sizes.get("RssAnon")
    return Memory(
        peak_rss_mb=peak,
        steady_rss_mb=sizes.get("VmRSS"),
        steady_file_mb=sizes.get("RssFile"),
        steady_anonymous_mb=None if anonymous is None else anonymous + sizes.get("RssShmem", 0.0),
    )


def _peak() -> float | None:
    """The peak where there is no /proc."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
