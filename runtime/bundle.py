"""Open a bundle: read its manifest and check every file, size, offset and path before use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgedec.errors import BundleError
from edgedec.runtime.manifest import MANIFEST, Manifest, load_manifest
from edgedec.runtime.onnx_file import read_onnx

MAX_OPSET = 24
HASHED_AT_OPEN = 1 << 26
"""Files up to this size (64 MiB) are hashed on every opening: the graphs, the tokenizer. Weights
are only values, cannot break anything, and are hashed by `verify_files`."""


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
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = (
            "it looks like a checkpoint: make a bundle with 'edgedec export'."
            if (folder / "config.json").exists()
            else "give a folder made by 'edgedec export'."
        )
        raise BundleError(f"{str(folder)!r} has no {MANIFEST}; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{MANIFEST} of {str(folder)!r} cannot be read: {error}") from error
    bundle = Bundle(folder, load_manifest(text))
    check_files(bundle)
    return bundle


def check_files(bundle: Bundle) -> None:
    """Check names, sizes, small files' hashes, and where graphs point.

    Raises:
        BundleError: with the file at fault.
    """
    sizes = {}
    for name, entry in bundle.manifest.files.items():
        path = _inside(bundle.folder, name)
        try:
            sizes[name] = path.stat().st_size
        except OSError:
            raise BundleError(
                f"{name} of the bundle is missing: copy or export it again."
            ) from None
        if sizes[name] != entry.bytes:
            raise BundleError(
                f"{name} has {sizes[name]:,} bytes, its manifest says {entry.bytes:,}: "
                "the bundle is damaged or only half copied; copy or export it again."
            )
    graphs = {c.file for c in bundle.manifest.components.values()}
    for name, entry in bundle.manifest.files.items():
        if sizes[name] <= HASHED_AT_OPEN and not name.endswith(".bin"):
            data = bundle.path(name).read_bytes()
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise BundleError(f"{name} is not the file that was exported (its hash differs).")
            if name in graphs:
                _check_graph(name, data, sizes)
        elif name in graphs:
            raise BundleError(f"{name} is too large for a graph ({sizes[name]:,} bytes).")


def verify_files(bundle: Bundle) -> None:
    """Hash every file, weights included; raises BundleError at the first that differs."""
    for name, entry in bundle.manifest.files.items():
        digest = hashlib.sha256()
        with bundle.path(name).open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
        if digest.hexdigest() != entry.sha256:
            raise BundleError(f"{name} is not the file that was exported (its hash differs).")


def _inside(folder: Path, name: str) -> Path:
    """The path of a bundle's file; refuses names and links that lead out of the folder."""
    pure = PurePosixPath(name)
    path = folder / name
    if (
        not name
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or "\0" in name
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        raise BundleError(f"the bundle names the file {name!r}, which is outside of its folder.")
    return path


def _check_graph(name: str, data: bytes, sizes: dict[str, int]) -> None:
    try:
        graph = read_onnx(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is no ONNX file ({error}): copy or export it again.") from error
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
