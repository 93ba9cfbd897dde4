"""Files of results: all of it or nothing, and known to be writable before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgedec.errors import InputError
from edgedec.runtime.text_file import check_writable, write_text


def test_written_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    check_writable(file)
    assert not file.exists()
    write_text(file, "naïve\n")
    check_writable(file)
    write_text(file, "über\n")
    assert file.read_bytes() == "über\n".encode()
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    write_text(link, "x")
    assert link.is_symlink()
    assert target.read_text() == "x"


def test_what_cannot_be_encoded_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "results"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["", "none/file", "file/below"])
def test_places_that_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for attempt in (check_writable, lambda path: write_text(path, "")):
        with pytest.raises(InputError, match="Cannot write"):
            attempt(tmp_path / name)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody writes to")
def test_a_folder_that_takes_no_files() -> None:
    with pytest.raises(InputError, match="Cannot write"):
        check_writable("/proc/results.html")


@pytest.mark.skipif(os.name == "nt", reason="needs /dev/null")
def test_a_device_is_written_to() -> None:
    check_writable("/dev/null")
    write_text("/dev/null", "x")
    assert Path("/dev/null").is_char_device()
