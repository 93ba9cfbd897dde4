"""Energy of the processor, by Linux' interface to its own counters (RAPL).

Zones lie in ``/sys/class/powercap``: ``intel-rapl:0`` is a package (AMD's have the same names),
``intel-rapl:0:0`` a part of it. Only packages are added up: parts are contained in them, and so
are, as ``intel-rapl-mmio``, the same packages once more.
Source: https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgedec.runtime.profiling.system import SYS, read, read_number

PACKAGE = re.compile(r"intel-rapl:\d+")


@dataclass
class _Zone:
    """A counter in microjoules that starts again from 0 beyond its largest value."""

    file: Path
    largest: int
    last: int
    sum: int = 0


class Energy:
    """Adds up what all packages used since it was opened; other processes' share is in it.

    Ask at least once a minute: at hundreds of watts, a counter starts again after some ten minutes,
    and only once per question is noticed.
    """

    def __init__(self, zones: list[_Zone]) -> None:
        self._zones = zones

    @staticmethod
    def open(sys: Path = SYS) -> Energy | None:
        """Start counting; None where there are no counters that may be read (`why_not`).

        Args:
            sys: where the system tells.
        """
        zones = []
        for folder in _packages(sys):
            file = folder / "energy_uj"
            largest = read_number(folder / "max_energy_range_uj")
            last = read_number(file)
            if last is None or largest is None:
                return None
            zones.append(_Zone(file, largest, last))
        return Energy(zones) if zones else None

    def since(self, before: float | None) -> float | None:
        """Joules since an earlier answer of `joules`; None if that is not known.

        Counters move about once a millisecond: what is shorter is not known, and not 0.
        """
        now = self.joules()
        return now - before if before is not None and now is not None and now > before else None

    def joules(self) -> float | None:
        """Joules since it was opened; None if a counter cannot be read any more."""
        values = [read_number(zone.file) for zone in self._zones]
        for zone, now in zip(self._zones, values, strict=True):
            if now is None:  # what could be read a moment ago: the others' sum is not the whole
                return None
            used = now - zone.last
            zone.sum += used if used >= 0 else used + zone.largest
            zone.last = now
        return sum(zone.sum for zone in self._zones) / 1e6


def why_not(sys: Path = SYS) -> str | None:
    """Why `Energy.open` gives None, in a sentence; None where it does not."""
    packages = _packages(sys)
    if not packages:
        return (
            "this machine has no energy counters (RAPL) in /sys/class/powercap; virtual machines "
            "and most boards have none"
        )
    unreadable = [folder.name for folder in packages if read(folder / "energy_uj") is None]
    if unreadable:
        return (
            f"the energy counter {unreadable[0]}/energy_uj may only be read by root: run as root, "
            "or allow it (chmod a+r)"
        )
    if Energy.open(sys) is None:
        return "the energy counters (RAPL) of this machine say no range"
    return None


def _packages(sys: Path) -> list[Path]:
    """Folders of packages; ``psys``, the whole board, contains them all and is left out."""
    try:
        folders = sorted((sys / "class" / "powercap").iterdir())
    except OSError:
        return []
    return [
        folder
        for folder in folders
        if PACKAGE.fullmatch(folder.name) and (read(folder / "name") or "").startswith("package")
    ]
