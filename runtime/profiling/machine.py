"""Facts of the processor and its memory, as Linux tells them; None elsewhere."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgedec.runtime.profiling.system import PROC, SYS, read, read_number

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cpu_model(proc: Path = PROC) -> str:
    """Model of the processor; of boards that do not name it, of the board."""
    info = _cpuinfo(proc)
    board = read(proc / "device-tree" / "model")
    known = info.get("model name") or info.get("Hardware") or (board or "").strip("\0")
    return known or platform.processor() or platform.machine()


def is_virtual(proc: Path = PROC, sys: Path = SYS) -> bool | None:
    """Whether a hypervisor runs this machine; only x86 can tell that none does."""
    if (sys / "hypervisor" / "type").exists() or (proc / "device-tree" / "hypervisor").exists():
        return True
    flags = _cpuinfo(proc).get("flags")
    return None if flags is None else "hypervisor" in flags.split()


def cache_bytes(sys: Path = SYS) -> int | None:
    """The largest cache of the first core."""
    texts = map(read, (sys / "devices/system/cpu/cpu0/cache").glob("index*/size"))
    return max((_size(text) for text in texts if text), default=None)


def memory_bytes(proc: Path = PROC) -> int | None:
    """Of the machine."""
    return _meminfo(proc, "MemTotal")


def available_memory(proc: Path = PROC) -> int | None:
    """Bytes that can be allocated without swapping."""
    return _meminfo(proc, "MemAvailable")


def governor(sys: Path = SYS) -> str | None:
    """Of frequency scaling; all of them, in order, where cores differ."""
    paths = (sys / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({name for path in paths if (name := read(path))})) or None


def boost(sys: Path = SYS) -> bool | None:
    """Whether clocks may exceed the base clock."""
    folder = sys / "devices/system/cpu"
    off = read_number(folder / "intel_pstate/no_turbo")
    if off is not None:
        return off == 0
    on = read_number(folder / "cpufreq/boost")
    return None if on is None else on == 1


def load() -> float | None:
    """The 1-minute load average."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; unobtainable
        return None


def _cpuinfo(proc: Path) -> dict[str, str]:
    """Of the first core."""
    pairs: dict[str, str] = {}
    for line in (read(proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        pairs.setdefault(key.strip(), value.strip())
    return pairs


def _meminfo(proc: Path, key: str) -> int | None:
    for line in (read(proc / "meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) << 10
    return None


def _size(text: str) -> int:
    """Bytes of ``512K``."""
    return int(text.rstrip("KMG")) * UNITS.get(text[-1], 1)
