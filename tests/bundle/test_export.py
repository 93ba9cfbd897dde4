"""What an export leaves behind: the same bytes each time, all of a bundle or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from edgedec.errors import CheckpointError, InputError
from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import open_bundle, verify_files


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def cli(*arguments: str, cwd: Path | None = None, seed: str = "0") -> tuple[int, str]:
    """Exit code and standard error of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "edgedec", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONHASHSEED": seed, "NO_COLOR": "1"},
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def test_same_bytes_from_elsewhere(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    """The path, the working directory, the name of the bundle and hash seeds leave no trace."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / checkpoint.name
    moved.symlink_to(checkpoint)
    code, error = cli("export", "../moved/tiny-t5", "-o", "other", cwd=tmp_path / "cwd", seed="7")
    assert (code, error) == (0, "")
    assert hashes(tmp_path / "cwd" / "other") == hashes(exported)


def test_hashes_are_right(exported: Path, staged: Path) -> None:
    for bundle in (exported, staged):
        opened = open_bundle(bundle)
        verify_files(opened)
        assert {*opened.manifest.files, "edgedec.json"} == {p.name for p in bundle.iterdir()}


def test_tied_tensors_once(checkpoint: Path, exported: Path, staged: Path, tmp_path: Path) -> None:
    """The embedding of both stacks and the head are one tensor; copies in the file are no more."""
    stored = load_file(checkpoint / "model.safetensors")
    parameters = sum(tensor.size for tensor in stored.values())
    # Bucketed position biases are stored as tables over distances, equal norms once.
    kept = {t.tobytes(): t.size for name, t in stored.items() if "relative" not in name}
    counted = open_bundle(exported).manifest.parameters
    assert sum(kept.values()) < counted < sum(kept.values()) + 2 * 2 * 130 * 4
    assert (staged / "weights.bin").read_bytes().count(stored["shared.weight"].tobytes()) == 1
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    again = tmp_path / checkpoint.name
    again.mkdir()
    for name in ("config.json", "tokenizer.json", "LICENSE"):
        (again / name).write_bytes((checkpoint / name).read_bytes())
    save_file(
        {**stored, **{name: stored["shared.weight"].copy() for name in copies}},
        again / "model.safetensors",
    )
    bundle = export_checkpoint(again, tmp_path / "again")
    assert (bundle / "weights.bin").read_bytes() == (exported / "weights.bin").read_bytes()
    assert (exported / "weights.bin").stat().st_size <= parameters * 4 + 64 * len(stored)


def test_killed_export_leaves_no_bundle(checkpoint: Path, tmp_path: Path) -> None:
    """Killed where it cannot clean up, at every step of the way."""
    script = textwrap.dedent("""
        import sys, time
        from edgedec.export import export_checkpoint
        def stop(what, fraction):
            if what == sys.argv[3]:
                print("here", flush=True)
                time.sleep(60)
        export_checkpoint(sys.argv[1], sys.argv[2], progress=stop)
    """)
    for step in ("writing weights", "verifying"):
        out = tmp_path / step / "bundle"
        arguments = [sys.executable, "-c", script, str(checkpoint), str(out), step]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            os.kill(process.pid, signal.SIGKILL)
        assert not out.exists()
        assert not list(out.parent.rglob("edgedec.json"))
    assert export_checkpoint(checkpoint, out) == out


@pytest.fixture
def no_space(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the disk be full after some files."""

    def fill(after: int) -> None:
        left = iter(range(after))

        def fsync(_: int) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)

    return fill


@pytest.mark.parametrize("files", [0, 1, 4])
def test_full_disk(
    checkpoint: Path, tmp_path: Path, no_space: Callable[[int], None], files: int
) -> None:
    no_space(files)
    with pytest.raises(CheckpointError, match=r"could not be written: No space left on device\.$"):
        export_checkpoint(checkpoint, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="no such limit there")
def test_full_disk_on_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    """A limit on the size of files is the fullest disk to be had without being root."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384)); "
        "from edgedec.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "export", str(checkpoint), "-o", str(tmp_path / "bundle")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the bundle ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_any_failure_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    def interrupt(what: str, fraction: float) -> None:
        if what == "verifying":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(checkpoint, tmp_path / "deep" / "bundle", progress=interrupt)
    assert not list((tmp_path / "deep").iterdir())


def test_force_replaces_and_a_failed_one_does_not(
    checkpoint: Path,
    exported: Path,
    copy: Callable[[Path], Path],
    no_space: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = copy(exported)
    (bundle / "notes.txt").write_text("old")
    before = hashes(bundle)
    with pytest.raises(InputError, match="replace it with --force"):
        export_checkpoint(checkpoint, bundle)
    no_space(3)
    with pytest.raises(CheckpointError):
        export_checkpoint(checkpoint, bundle, force=True)
    assert hashes(bundle) == before
    no_space(99)
    replace, calls = Path.replace, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_second)
    with pytest.raises(CheckpointError, match="Input/output error"):
        export_checkpoint(checkpoint, bundle, force=True)
    assert hashes(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]
    export_checkpoint(checkpoint, bundle, force=True)
    assert hashes(bundle) == hashes(exported)
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def _file(at: Path) -> Path:
    at.write_text("precious")
    return at


def _full_folder(at: Path) -> Path:
    at.mkdir()
    (at / "precious.txt").write_text("precious")
    return at


TARGETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a file": (_file, "exists and is no bundle"),
    "a folder with something in it": (_full_folder, "exists and is no bundle"),
    "below a file": (lambda at: _file(at) / "bundle", "cannot write to"),
    "no place to write": (lambda at: Path("/proc/bundle"), "cannot write to"),
    "a name that is too long": (lambda at: at.with_name("n" * 300), "cannot write to"),
    "a name with a zero byte": (lambda at: at / "a\0b", "cannot write to"),
    "no name": (lambda at: Path("/"), "is no name for a bundle"),
    "the current folder": (lambda at: Path(), "is no name for a bundle"),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("force", [False, True])
def test_targets_that_must_not_be_replaced(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, force: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    make, reason = TARGETS[kind]
    out = make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=reason):
        export_checkpoint(checkpoint, out, force=force)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_as_good_as_none(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    open_bundle(export_checkpoint(checkpoint, tmp_path / "bundle"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_names_that_cannot_be_printed(checkpoint: Path, tmp_path: Path) -> None:
    """Of the checkpoint's folder and of a file that would be copied."""
    strange = Path(shutil.copytree(checkpoint, tmp_path / "tiny\x1b[31m"))
    (strange / "LICENSE\x07").write_text("beep")
    manifest = open_bundle(export_checkpoint(strange, tmp_path / "bundle")).manifest
    assert manifest.source.id == "tiny?[31m"
    assert [name for name in manifest.files if "LICENSE" in name] == ["LICENSE"]


def test_leftovers_of_killed_exports_go_after_a_day(checkpoint: Path, tmp_path: Path) -> None:
    old, new = tmp_path / ".b.partial-old", tmp_path / ".b.partial-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    export_checkpoint(checkpoint, tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == [new.name, "b"]


def test_a_terminated_export_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from edgedec.cli import cli
        from edgedec.export import pipeline
        pipeline.save_graphs = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        sys.argv[1:] = ["export", *sys.argv[1:]]
        cli()
        """
    )
    command = [sys.executable, "-c", script, str(checkpoint), "-o", str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert list(tmp_path.iterdir()) == []
