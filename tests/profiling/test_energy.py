"""Energy counters of the processor, as Linux shows them in a folder."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.runtime.profiling.energy import Energy, why_not

RANGE = 262_143_328_850


def zone(sys: Path, folder: str, name: str, microjoules: int, largest: int = RANGE) -> Path:
    path = sys / "class" / "powercap" / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{largest}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 5_000_000)
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 10),
        zone(tmp_path, "intel-rapl:0:1", "dram", 10),
        zone(tmp_path, "intel-rapl:2", "psys", 10),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 10),
    ]
    energy = Energy.open(tmp_path)
    assert energy is not None
    assert why_not(tmp_path) is None
    assert energy.joules() == 0
    first.write_text("3500000")
    second.write_text("6000000")
    for other in others:
        other.write_text("99000000")
    assert energy.joules() == pytest.approx(3.5)
    assert energy.joules() == pytest.approx(3.5)


@given(
    largest=st.integers(1_000, 1 << 50),
    start=st.integers(0, 1 << 50),
    steps=st.lists(st.integers(0, 1 << 50), max_size=5),
)
def test_a_counter_that_starts_again_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, largest: int, start: int, steps: list[int]
) -> None:
    used = [step % largest for step in steps]
    values = [value % largest for value in itertools.accumulate([start, *used])]
    folder = tmp_path_factory.mktemp("sys")
    file = zone(folder, "intel-rapl:0", "package-0", values[0], largest)
    energy = Energy.open(folder)
    assert energy is not None
    for value in values[1:]:
        file.write_text(str(value))
        energy.joules()
    assert energy.joules() == pytest.approx(sum(used) / 1e6)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    assert Energy.open(tmp_path) is None
    assert "no energy counters" in (why_not(tmp_path) or "")
    (tmp_path / "class" / "powercap").mkdir(parents=True)
    assert Energy.open(tmp_path) is None
    assert "no energy counters" in (why_not(tmp_path) or "")


def test_counters_for_root_only_say_so(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    file.chmod(0)
    if os.access(file, os.R_OK):  # root reads everything
        file.unlink()
        file.mkdir()
    assert Energy.open(tmp_path) is None
    assert "root" in (why_not(tmp_path) or "")


def test_a_counter_without_a_range_is_none(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (file.parent / "max_energy_range_uj").write_text("unknown")
    assert Energy.open(tmp_path) is None
    assert "range" in (why_not(tmp_path) or "")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_part_of_the_energy_is_no_energy(tmp_path: Path, lost: int) -> None:
    files = [zone(tmp_path, f"intel-rapl:{i}", f"package-{i}", 0) for i in range(2)]
    energy = Energy.open(tmp_path)
    assert energy is not None
    files[0].write_text("2000000")
    assert energy.joules() == pytest.approx(2.0)
    files[lost].unlink()
    assert energy.joules() is None
    assert energy.since(2.0) is None
    assert energy.since(None) is None
    files[lost].write_text("7000000")  # it is back, and has counted on
    files[1 - lost].write_text("7000000")
    assert energy.joules() == pytest.approx(14.0)
    assert energy.since(None) is None


def test_a_counter_that_has_not_moved_says_nothing(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    energy = Energy.open(tmp_path)
    assert energy is not None
    before = energy.joules()
    assert energy.since(before) is None
    file.write_text("3000005")
    assert energy.since(before) == pytest.approx(3.0)
