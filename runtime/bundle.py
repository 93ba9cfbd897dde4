"""Open a bundle: read its manifest and check every file, size, offset and path before use."""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgedec.errors import BundleError
from edgedec.runtime.manifest import MANIFEST, FileEntry, Manifest, load_manifest
from edgedec.runtime.onnx_file import read_onnx

MAX_OPSET = 24
HASHED_AT_OPEN = 1 << 22
"""Files up to this size (4 MiB) are hashed on every opening. Larger ones are weights: hashing them
takes longer than a short answer; being only values they cannot break anything, and `verify_files`
hashes them."""
MAX_MANIFEST = MAX_GRAPH = 1 << 24
"""Bytes of ``edgedec.json`` and of one graph without its weights; a thousand layers have fewer."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        """The path of one of its files."""
        return self.folder / file


def open_bundle(folder: str | Path) -> Bundle:
    """Read and check a bundle without opening any session.

    Raises:
        BundleError: no bundle there, or one that is damaged, incomplete, or reaches outside.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(
            f"{str(folder)!r} is not a folder: give a bundle made by 'edgedec export'."
        )
    path = folder / MANIFEST
    try:
        if _size(path) > MAX_MANIFEST:
            raise BundleError(f"{MANIFEST} of {str(folder)!r} is too large.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = (
            "it looks like a checkpoint: make a bundle with 'edgedec export'."
            if (folder / "config.json").exists()
            else "give a folder made by 'edgedec export'."
        )
        raise BundleError(f"{str(folder)!r} has no {MANIFEST}; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{MANIFEST} of {str(folder)!r} cannot be read: {error}.") from error
    bundle = Bundle(folder, load_manifest(text))
    check_files(bundle)
    return bundle


def check_files(bundle: Bundle) -> None:
    """Check names, sizes, small files' hashes, and where graphs point.

    Raises:
        BundleError: with the file at fault.
    """
    files = bundle.manifest.files
    sizes = {name: _checked_size(bundle, name, entry) for name, entry in files.items()}
    graphs = graph_files(bundle.manifest)
    compiled: set[str] = set()
    for name in graphs:
        if sizes[name] > MAX_GRAPH:
            raise BundleError(f"{name} is too large for a graph ({sizes[name]:,} bytes).")
    for name, entry in files.items():
        if sizes[name] > HASHED_AT_OPEN and name not in graphs:
            continue
        try:
            data = bundle.path(name).read_bytes()
        except OSError as error:
            raise _unreadable(name, error) from error
        _check_hash(name, entry, hashlib.sha256(data).hexdigest())
        if name in graphs:
            compiled |= _check_graph(name, data, sizes)
    for name in sorted(compiled):
        # Not only values: a device's driver would take what is damaged for a program.
        if sizes[name] > HASHED_AT_OPEN:
            _check_hash(name, files[name], _digest(bundle, name))


def graph_files(manifest: Manifest) -> set[str]:
    """Every ``.onnx`` file that a manifest speaks of."""
    components = manifest.components.values()
    return {c.file for c in components} | {f for c in components for f in c.contexts.values()}


def verify_files(bundle: Bundle, names: Iterable[str] | None = None) -> None:
    """Hash files, weights included; raises BundleError at the first that differs.

    Args:
        bundle: the bundle.
        names: of files that the manifest lists; all of them by default.
    """
    files = bundle.manifest.files
    for name in files if names is None else names:
        _check_hash(name, files[name], _digest(bundle, name))


def _digest(bundle: Bundle, name: str) -> str:
    """The hash of a file that may be large."""
    digest = hashlib.sha256()
    try:
        with bundle.path(name).open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise _unreadable(name, error) from error
    return digest.hexdigest()


def _checked_size(bundle: Bundle, name: str, entry: FileEntry) -> int:
    """The size of a file that is inside of the bundle and as long as its manifest says."""
    path = _inside(bundle.folder, name)
    try:
        size = _size(path)
    except FileNotFoundError:
        raise BundleError(f"{name} of the bundle is missing: copy or export it again.") from None
    except OSError as error:
        raise _unreadable(name, error) from error
    if size != entry.bytes:
        raise BundleError(
            f"{name} has {size:,} bytes, its manifest says {entry.bytes:,}: "
            "the bundle is damaged or only half copied; copy or export it again."
        )
    return size


def _size(path: Path) -> int:
    """The size of a regular file; a pipe or a device could be read without end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return status.st_size


def _check_hash(name: str, entry: FileEntry, digest: str) -> None:
    if digest != entry.sha256:
        raise BundleError(f"{name} is not the file that was exported (its hash differs).")


def _unreadable(name: str, error: OSError) -> BundleError:
    return BundleError(f"{name} of the bundle cannot be read: {error.strerror}.")


def _inside(folder: Path, name: str) -> Path:
    """The path of a bundle's file; refuses names and links that lead out of the folder."""
    pure = PurePosixPath(name)
    if (
        not name
        or pure.is_absolute()
        or pure.as_posix() != name  # one name for one file: no "./x", no "a//b"
        or ".." in pure.parts
        or "\\" in name
    ):
        raise BundleError(f"the bundle names the file {name!r}, which is outside of its folder.")
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if not inside:
        raise BundleError(
            f"{name} of the bundle is a link that leads out of its folder: make a copy in which "
            "links are files (cp -rL)."
        )
    return path


def _check_graph(name: str, data: bytes, sizes: dict[str, int]) -> set[str]:
    """Check a graph and where it points; returns the files of compiled graphs that it names."""
    try:
        graph = read_onnx(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} cannot be used ({error}): copy or export it again.") from error
    opset = graph.opsets.get("", 0)
    if not 0 < opset <= MAX_OPSET:
        raise BundleError(
            f"{name} uses ONNX opset {opset}, this edgedec runs up to {MAX_OPSET}: upgrade edgedec."
        )
    for reference in graph.external:
        at = f"tensor {reference.tensor!r} of {name}"
        if reference.location not in sizes:
            raise BundleError(
                f"{at} is stored in {reference.location!r}, which is no file of the bundle."
            )
        size = sizes[reference.location]
        end = reference.offset + (reference.length or 0)
        if reference.offset > size or end > size:
            raise BundleError(
                f"{at} ends at byte {end:,} of {reference.location}, which has {size:,}: "
                "the bundle is damaged; export it again."
            )
    for file in graph.compiled:
        if file not in sizes:
            raise BundleError(
                f"{name} is compiled into {file!r}, which is no file of the bundle: copy or export "
                "it again."
            )
    return set(graph.compiled)
