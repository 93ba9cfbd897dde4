"""What a benchmark ran on."""

from __future__ import annotations

import datetime as dt
import platform
from typing import Any

from edgedec.devices.options import available_cores
from edgedec.runtime.profiling.machine import cache_bytes, cpu_model, load


def machine() -> dict[str, Any]:
    """CPU, cores that this process may use, largest cache in bytes, load, date."""
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "last_level_cache": last_level_cache(),
        "load_before": load(),
        "python": platform.python_version(),
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
    }


def last_level_cache() -> int:
    """Bytes of the largest cache, 32 MiB where the system does not say."""
    return cache_bytes() or 32 << 20
