"""Built-in checkpoints and the cache of their bundles."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import edgedec.export
from edgedec import builtin
from edgedec.errors import BundleError


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one built-in checkpoint, `tiny`, and an empty cache."""
    folder = tmp_path / "checkpoints"
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "config.json").write_text("{}")
    (folder / "tiny" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(builtin, "CHECKPOINTS", folder)
    monkeypatch.setenv("EDGEDEC_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the exporter by one that takes a moment and writes a manifest; list its calls."""
    calls: list[Path] = []

    def export(checkpoint: Path, out: Path, **_: Any) -> Path:
        calls.append(out)
        time.sleep(0.05)
        out.mkdir()
        shutil.copy(checkpoint / "model.safetensors", out / "weights.bin")
        (out / "edgedec.json").write_text("{}")
        return out

    monkeypatch.setattr(edgedec.export, "export_checkpoint", export)
    return calls


def test_first_use_exports_and_later_use_does_not(checkpoints: Path, exports: list[Path]) -> None:
    notes: list[str] = []
    first = builtin.resolve_bundle("tiny", notes.append)
    assert (first / "weights.bin").read_bytes() == b"weights"
    assert builtin.resolve_bundle("tiny", notes.append) == first
    assert len(exports) == len(notes) == 1
    assert "first use only" in notes[0]
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_new_weights_make_a_new_bundle(checkpoints: Path, exports: list[Path]) -> None:
    first = builtin.resolve_bundle("tiny")
    (checkpoints / "tiny" / "model.safetensors").write_bytes(b"better!")
    second = builtin.resolve_bundle("tiny")
    assert second != first
    assert (second / "weights.bin").read_bytes() == b"better!"


def test_many_at_once_share_one_bundle(checkpoints: Path, exports: list[Path]) -> None:
    found: list[Path] = []
    workers = [
        threading.Thread(target=lambda: found.append(builtin.resolve_bundle("tiny")))
        for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert [path.name for path in found[0].parent.iterdir()] == [found[0].name]


def test_a_failed_export_leaves_nothing(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def export(checkpoint: Path, out: Path, **_: Any) -> Path:
        out.mkdir()
        (out / "weights.bin").touch()
        raise BundleError("No space left.")

    monkeypatch.setattr(edgedec.export, "export_checkpoint", export)
    with pytest.raises(BundleError, match="No space"):
        builtin.resolve_bundle("tiny")
    assert not list((tmp_path / "cache" / "builtin").iterdir())


def test_abandoned_exports_are_swept(
    checkpoints: Path, exports: list[Path], tmp_path: Path
) -> None:
    home = tmp_path / "cache" / "builtin"
    for name, age in ((".new-old", 2 * 24 * 3600), (".new-fresh", 60)):
        (home / name).mkdir(parents=True)
        os.utime(home / name, (time.time() - age,) * 2)
    builtin.resolve_bundle("tiny")
    assert not (home / ".new-old").exists()
    assert (home / ".new-fresh").exists()


def test_sweeping_meets_folders_that_another_process_removes(
    checkpoints: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda home, pattern: iter([home / ".new-gone"]))
    monkeypatch.setattr(builtin, "builtin_names", lambda: ["tiny"])
    assert (builtin.resolve_bundle("tiny") / "edgedec.json").exists()


def test_a_bundle_folder_wins_over_a_name_and_another_folder_does_not(
    checkpoints: Path, exports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert builtin.resolve_bundle("tiny") != Path("tiny")
    (tmp_path / "tiny" / "edgedec.json").touch()
    assert builtin.resolve_bundle("tiny") == Path("tiny")


@pytest.mark.skipif(os.name == "nt", reason="a file in the place of a folder")
def test_a_cache_that_cannot_be_written(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEDEC_CACHE", str(tmp_path / "file"))
    with pytest.raises(BundleError, match="set EDGEDEC_CACHE to a folder"):
        builtin.resolve_bundle("tiny")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("EDGEDEC_CACHE", "~/mine")
    assert builtin.cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("EDGEDEC_CACHE")
    assert builtin.cache_folder() == tmp_path / "edgedec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    if sys.platform == "linux":
        assert builtin.cache_folder() == Path.home() / ".cache" / "edgedec"


def test_the_package_has_g2p() -> None:
    assert "g2p" in builtin.builtin_names()
