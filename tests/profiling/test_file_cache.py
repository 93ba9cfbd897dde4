"""Files of a bundle in memory and out of it, as far as the system lets."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from edgedec.runtime.manifest import MANIFEST
from edgedec.runtime.profiling import file_cache
from edgedec.runtime.profiling.file_cache import cool, files, resident, state, warm

SIZE = 3 * (1 << 20) + 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / "weights.bin").write_bytes(os.urandom(SIZE))
    (tmp_path / "empty").touch()
    return tmp_path


def needs_pages(folder: Path) -> None:
    if resident(folder) is None:
        pytest.skip("the system does not tell which pages are in memory")


def needs_cold(folder: Path) -> None:
    """Whether the system can do what is tested, by its own call."""
    needs_pages(folder)
    probe = folder / "probe"
    probe.mkdir()
    with (probe / MANIFEST).open("w+b") as stream:
        stream.write(bytes(SIZE))
        stream.flush()
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(probe) != 0:
        pytest.skip("the system does not drop files from memory here")
    assert cool(folder) == "cold"


def test_what_was_read_is_warm(folder: Path) -> None:
    needs_pages(folder)
    assert warm(folder) == "warm"
    assert resident(folder) == 1


def test_what_was_dropped_is_cold_until_it_is_read(folder: Path) -> None:
    needs_cold(folder)
    assert resident(folder) == 0
    assert state(folder) == "cold"
    assert warm(folder) == "warm"


def test_a_part_in_memory_is_neither(folder: Path) -> None:
    needs_cold(folder)
    with (folder / "weights.bin").open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(stream.fileno(), 1 << 20, 0)
    fraction = resident(folder)
    assert fraction is not None
    assert 0.2 < fraction < 0.5
    assert state(folder) is None


def test_pages_that_somebody_uses_stay(folder: Path) -> None:
    needs_cold(folder)
    with (folder / "weights.bin").open("rb") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as used:
            assert sum(used[:: mmap.PAGESIZE]) >= 0  # touches every page
            assert cool(folder) == "warm"
        assert cool(folder) == "cold"


def test_nothing_changes_in_the_files(folder: Path) -> None:
    before = (folder / "weights.bin").read_bytes()
    for change in (cool, warm, cool):
        change(folder)
        assert (folder / "weights.bin").read_bytes() == before


def test_where_the_system_does_not_tell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_cache, "_mincore", lambda: None)
    assert resident(folder) is None
    assert cool(folder) is None
    # It was just read.
    assert warm(folder) == "warm"
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert cool(folder) is None


def test_no_other_folder_is_touched(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    assert files(folder) == []
    for nowhere in (folder, folder / "none", folder / "weights.bin", Path("x" * 5000)):
        assert cool(nowhere) is None
        assert warm(nowhere) is None
    (folder / "config.json").write_text("{}")
    assert [path.name for path in files(folder)] == ["config.json", "weights.bin"]
