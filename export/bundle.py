"""Write a bundle: graphs, one file of weights, tokenizer and manifest, all or nothing."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import onnx_ir as ir

from edgedec.errors import CheckpointError, InputError
from edgedec.export.leftovers import sweep
from edgedec.runtime.manifest import MANIFEST, FileEntry

WEIGHTS = "weights.bin"
ALIGNMENT = 64
COPIED_AT_ONCE = 1 << 22
INLINE_LIMIT = 1024
"""Tensors below this many bytes stay in the graph's own file."""

Progress = Callable[[str, float], None]
"""Told what is being done, and which fraction of it is."""


@dataclass(frozen=True)
class Kind:
    """A kind of folder that is written: what to call it, and the file that each has."""

    noun: str
    sign: str


BUNDLE = Kind("bundle", MANIFEST)


class WeightFile:
    """``weights.bin``: every distinct tensor once, 64-byte aligned, shared by all graphs.

    Tensors are the same if their stored bytes are; a tied embedding and head need no other rule.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parameters = 0
        """Distinct weights: floating-point values but scalars, and what codes stand for."""
        self._file: IO[bytes] = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0
        self._offsets: dict[bytes, int] = {}
        self._seen: set[bytes] = set()

    def store(self, tensor: ir.TensorProtocol, parameters: int | None = None) -> ir.TensorProtocol:
        """Return what the graph holds in a tensor's place.

        That is a reference to its bytes, written here unless they are here already, or for a small
        tensor its values.

        Args:
            tensor: what to store.
            parameters: how many weights it stands for, where that is not its number of values.
        """
        data = tensor.tobytes()  # little-endian, two of 4 bits to a byte, as files have them
        shape = ir.Shape(tensor.shape.numpy())
        key = hashlib.sha256(data).digest()
        if parameters is None:
            counts = tensor.dtype.is_floating_point() and tensor.size > 1
            parameters = tensor.size if counts else 0
        if key not in self._seen:
            self.parameters += parameters
        self._seen.add(key)
        if len(data) < INLINE_LIMIT:
            return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=shape, name=tensor.name)
        if key not in self._offsets:
            self._write(bytes(-self._size % ALIGNMENT))
            self._offsets[key] = self._size
            self._write(data)
        return ir.ExternalTensor(
            location=WEIGHTS,
            offset=self._offsets[key],
            length=len(data),
            dtype=tensor.dtype,
            shape=shape,
            name=tensor.name or "",
            base_dir=self.path.parent,
        )

    def close(self) -> FileEntry:
        """Finish the file."""
        _flush(self._file)
        return FileEntry(self._size, self._digest.hexdigest())

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


def save_graphs(
    models: Mapping[str, ir.Model], folder: Path, progress: Progress
) -> tuple[dict[str, FileEntry], int]:
    """Write every graph and their common weights.

    Args:
        models: component name -> model; each becomes ``{name}.onnx``.
        folder: an existing folder.
        progress: told the fraction written.

    Returns:
        The files written, and the number of stored parameters.
    """
    weights = WeightFile(folder / WEIGHTS)
    files: dict[str, FileEntry] = {}
    total = sum(len(m.graph.initializers) for m in models.values())
    done = 0
    for name, model in models.items():
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            # Small tensors too are read here: the serializer would wrap what a damaged one raises.
            value.const_value = weights.store(tensor, value.meta.get("parameters"))
            done += 1
            progress("writing weights", done / total)
        data = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
        files[f"{name}.onnx"] = write_file(folder / f"{name}.onnx", data)
    files[WEIGHTS] = weights.close()
    return files, weights.parameters


def write_file(path: Path, data: bytes) -> FileEntry:
    """Write a file to disk for good and return its entry."""
    with path.open("wb") as file:
        file.write(data)
        _flush(file)
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


def copy_file(source: Path, target: Path) -> FileEntry:
    """Copy a file that may be large; write it to disk for good and return its entry."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as file:
        while block := read.read(COPIED_AT_ONCE):
            digest.update(block)
            file.write(block)
        size = file.tell()
        _flush(file)
    return FileEntry(size, digest.hexdigest())


@contextmanager
def new_folder(out: Path, *, force: bool, kind: Kind = BUNDLE) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block succeeds.

    Until then nothing that looks like a bundle exists under that name: a killed export leaves at
    most a hidden folder beside it.

    Args:
        out: the folder.
        force: whether one that exists is replaced.
        kind: what it is, and how an old one is recognised.

    Raises:
        InputError: ``out`` exists and must not, or can't, be replaced.
        CheckpointError: it could not be written.
    """
    try:
        _check_target(out, kind, force=force)
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent, f".{glob.escape(out.name)}.partial-*")
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write to {str(out)!r}: {reason}.") from error
    try:
        yield partial
        partial.chmod(0o755)
        _replace(partial, out)
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise CheckpointError(
            f"the {kind.noun} {str(out)!r} could not be written: {error.strerror or error}{at}."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_target(out: Path, kind: Kind, *, force: bool) -> None:
    if not out.name or out.resolve() == Path.cwd():
        raise InputError(f"{str(out)!r} is no name for a {kind.noun}: give one for a new folder.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / kind.sign).is_file():
        raise InputError(f"{str(out)!r} exists and is no {kind.noun}: choose another name.")
    if not force:
        raise InputError(f"{str(out)!r} exists: choose another name, or replace it with --force.")


def _replace(partial: Path, out: Path) -> None:
    """Rename, moving an old bundle out of the way first: folders can't be swapped in one step."""
    if not out.exists():
        partial.replace(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
    out.replace(old / out.name)
    try:
        partial.replace(out)
    except BaseException:
        (old / out.name).replace(out)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
