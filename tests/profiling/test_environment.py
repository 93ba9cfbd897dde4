"""What a profile says about the machine, on machines that are made of files."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgedec.runtime.profiling import bandwidth, machine
from edgedec.runtime.profiling.energy import Energy
from edgedec.runtime.profiling.environment import environment

X86 = """\
processor	: 0
model name	: Imaginary CPU @ 2.00GHz
cpu MHz		: 1999.5
flags		: fpu sse2 avx2{flag}

processor	: 1
model name	: Another CPU
"""
ARM = """\
processor	: 0
BogoMIPS	: 48.00
Features	: fp asimd
CPU part	: 0xd0b
"""
MEMORY = """\
MemTotal:        8000000 kB
MemFree:          100000 kB
MemAvailable:    6000000 kB
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_pc_is_described(tmp_path: Path) -> None:
    write(tmp_path / "cpuinfo", X86.format(flag=""))
    write(tmp_path / "meminfo", MEMORY)
    cpu = tmp_path / "devices" / "system" / "cpu"
    for index, size in enumerate(("48K", "32K", "2048K", "36M")):
        write(cpu / "cpu0" / "cache" / f"index{index}" / "size", f"{size}\n")
    for core in range(2):
        write(cpu / f"cpu{core}" / "cpufreq" / "scaling_governor", "powersave\n")
    assert machine.cpu_model(tmp_path) == "Imaginary CPU @ 2.00GHz"
    assert machine.is_virtual(tmp_path, tmp_path) is False
    assert machine.memory_bytes(tmp_path) == 8_000_000 * 1024
    assert machine.available_memory(tmp_path) == 6_000_000 * 1024
    assert machine.cache_bytes(tmp_path) == 36 << 20
    assert machine.governor(tmp_path) == "powersave"


def test_governors_that_differ_are_all_named(tmp_path: Path) -> None:
    for core, name in enumerate(("schedutil", "performance", "schedutil")):
        folder = tmp_path / "devices" / "system" / "cpu" / f"cpu{core}" / "cpufreq"
        write(folder / "scaling_governor", name)
    assert machine.governor(tmp_path) == "performance, schedutil"


def test_a_virtual_machine_is_recognised(tmp_path: Path) -> None:
    write(tmp_path / "cpuinfo", X86.format(flag=" hypervisor"))
    assert machine.is_virtual(tmp_path, tmp_path) is True


def test_a_board_is_described_by_its_name(tmp_path: Path) -> None:
    write(tmp_path / "cpuinfo", ARM)
    write(tmp_path / "device-tree" / "model", "Imaginary Board Rev 1.2\0")
    assert machine.cpu_model(tmp_path) == "Imaginary Board Rev 1.2"
    assert machine.is_virtual(tmp_path, tmp_path) is None
    write(tmp_path / "device-tree" / "hypervisor" / "compatible", "linux,kvm")
    assert machine.is_virtual(tmp_path, tmp_path) is True


@pytest.mark.parametrize(
    ("file", "text", "boost"),
    [
        ("intel_pstate/no_turbo", "1\n", False),
        ("intel_pstate/no_turbo", "0\n", True),
        ("cpufreq/boost", "1\n", True),
        ("cpufreq/boost", "0\n", False),
        ("cpufreq/boost", "?\n", None),
    ],
)
def test_boost_is_read_from_either_driver(
    tmp_path: Path, file: str, text: str, boost: bool | None
) -> None:
    write(tmp_path / "devices" / "system" / "cpu" / file, text)
    assert machine.boost(tmp_path) is boost


def test_a_system_without_such_files_says_nothing(tmp_path: Path) -> None:
    assert machine.cpu_model(tmp_path)  # the architecture at least
    assert machine.is_virtual(tmp_path, tmp_path) is None
    assert machine.memory_bytes(tmp_path) is None
    assert machine.cache_bytes(tmp_path) is None
    assert machine.governor(tmp_path) is None
    assert machine.boost(tmp_path) is None


def test_the_bandwidth_of_every_number_of_threads_is_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def measure(threads: int) -> float:
        asked.append(threads)
        return 10.004 * threads

    monkeypatch.setattr(bandwidth, "measure", measure)
    # None is the device's choice, from 1 to 4; 0 and a million fail their rows, not the profile
    found = environment([2, None, 2, 0, 1_000_000, None, 1])
    default = min(found.cores, 4)
    assert asked == sorted({1, 2, default})
    assert found.bandwidth_gb_s == {str(n): round(10.004 * n, 2) for n in asked}
    assert found.cores >= 1
    assert {"edgedec", "numpy", "onnxruntime", "tokenizers"} <= found.versions.keys()
    assert (found.energy_missing is None) == (Energy.open() is not None)
    begun = dt.datetime.strptime(found.date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
    assert abs(dt.datetime.now(dt.timezone.utc) - begun) < dt.timedelta(minutes=5)


def test_memory_is_read_at_a_plausible_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "SECONDS", 0.02)
    # slower than an SD card, faster than any cache: units would be wrong
    assert 0.1 < bandwidth.measure(1) < 1_000
    assert 0.1 < bandwidth.measure(3) < 1_000


def test_an_instruction_set_that_is_not_there_is_an_error() -> None:
    from edgedec.kernels.library import library_path

    if library_path() is None:
        pytest.skip("needs the operator library")
    # A process of its own: the library chooses once, and other tests may hold it open here.
    program = """
from edgedec.errors import InputError
from edgedec.runtime.profiling.environment import environment
try:
    environment([])
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "EDGEDEC_ISA": "imaginary"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("EDGEDEC_ISA=imaginary")


def test_function_bodies_have_no_instruction_set(no_library: None) -> None:
    assert environment([]).instruction_set is None
