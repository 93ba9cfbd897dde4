"""Memory of a process: what Linux tells, and what is left elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgedec.runtime.profiling.memory import process_memory

STATUS = """\
Name:	python
VmPeak:	  900000 kB
VmHWM:	  250000 kB
VmRSS:	  200000 kB
RssAnon:	  120000 kB
RssFile:	   70000 kB
RssShmem:	   10000 kB
Threads:	4
"""


def proc(folder: Path, status: str) -> Path:
    (folder / "self").mkdir()
    (folder / "self" / "status").write_text(status)
    return folder


def test_files_stand_apart_and_shared_memory_does_not_count_as_a_file(tmp_path: Path) -> None:
    memory = process_memory(proc(tmp_path, STATUS))
    assert memory.peak_rss_mb == pytest.approx(256.0)
    assert memory.steady_rss_mb == pytest.approx(204.8)
    assert memory.steady_file_mb == pytest.approx(71.68)
    assert memory.steady_anonymous_mb == pytest.approx(133.12)


def test_an_old_kernel_tells_less(tmp_path: Path) -> None:
    lines = [line for line in STATUS.splitlines(keepends=True) if not line.startswith("Rss")]
    memory = process_memory(proc(tmp_path, "".join(lines)))
    assert memory.steady_rss_mb == pytest.approx(204.8)
    assert (memory.steady_file_mb, memory.steady_anonymous_mb) == (None, None)


def test_without_proc_only_the_peak_is_known(tmp_path: Path) -> None:
    memory = process_memory(tmp_path)
    assert memory.steady_rss_mb is None
    assert memory.steady_file_mb is None
    assert memory.steady_anonymous_mb is None
    if sys.platform == "win32":
        assert memory.peak_rss_mb is None
    else:
        assert memory.peak_rss_mb is not None
        assert 1 < memory.peak_rss_mb < 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_that_is_written_to_is_resident_and_anonymous() -> None:
    before = process_memory()
    written = np.ones(64_000_000, np.uint8)
    after = process_memory()
    assert before.steady_anonymous_mb is not None
    assert after.steady_anonymous_mb is not None
    assert after.steady_rss_mb is not None
    assert after.peak_rss_mb is not None
    # The counters of a thread are added to those of the process with a delay of some pages.
    assert after.steady_anonymous_mb - before.steady_anonymous_mb > 0.9 * written.nbytes / 1e6
    assert after.peak_rss_mb >= 0.99 * after.steady_rss_mb
