"""How fast this machine reads memory: the bound of decoding, which reads all weights per token."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgedec.runtime.profiling.machine import available_memory, cache_bytes

CACHES = 4
"""Times the largest cache that is read: little of it is found there again."""
LEAST, MOST = 64 << 20, 512 << 20
SECONDS = 0.3
PASSES = 3


def measure(threads: int) -> float:
    """GB/s of reading memory once, of several passes the fastest.

    The maximum of int32 is NumPy's reduction with the widest loads and the least work between
    them: within 2 % of a loop in C that only reads. NumPy releases the interpreter's lock
    meanwhile, so threads of Python will do.

    Args:
        threads: read side by side, each its own part.
    """
    import numpy as np

    size = min(max(CACHES * (cache_bytes() or 0), LEAST), MOST, (available_memory() or MOST) // 4)
    # Written once, or all of it would be the same page of zeros.
    parts = np.array_split(np.ones(size // 4, np.int32), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        end = time.perf_counter() + SECONDS
        passes = 0
        while passes < PASSES or time.perf_counter() < end:
            best = min(best, _pass(pool, parts))
            passes += 1
    return sum(part.nbytes for part in parts) / best / 1e9


def _pass(pool: ThreadPoolExecutor, parts: list[Any]) -> float:
    """Seconds to read all parts."""
    import numpy as np

    began = time.perf_counter()
    list(pool.map(np.maximum.reduce, parts))
    return time.perf_counter() - began
