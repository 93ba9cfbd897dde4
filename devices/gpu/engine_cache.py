"""Engines in the user's cache folder: built once for a bundle, a GPU and a version of TensorRT."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from edgedec.builtin import cache_folder
from edgedec.devices.gpu.engine import Facts, Form
from edgedec.errors import DeviceError
from edgedec.kernels import ptx
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Limits, Manifest
from edgedec.runtime.onnx_file import read_onnx
from edgedec.runtime.schema import decode, encode

logger = logging.getLogger(__name__)
FOLDER = "engines"
ENGINE, FACTS, KERNELS, LOCK = ".engine", ".json", ".kernels", ".lock"
"""Ends of names: the engine, its facts, what TensorRT-RTX compiled for it, its lock."""


@dataclass(frozen=True)
class Key:
    """Everything that an engine depends on.

    Attributes:
        device: that it is for.
        form: how it has its codes.
        component: of the bundle.
        runtime: TensorRT's version.
        gpu: as in `Facts`, with the driver's version.
        edgedec: its version.
        limits: how far it reaches.
        files: what its graph is made of -> SHA-256.
        place: SHA-256 of what the manifest says of it: its part of the model, its codes.
        lowering: SHA-256 of the code that makes graphs, which may change within a version.
        kernels: SHA-256 of the list of the plugin's kernels; None without the plugin.
    """

    device: str
    form: Form
    component: str
    runtime: str
    gpu: str | None
    edgedec: str
    limits: Limits
    files: dict[str, str]
    place: str
    lowering: str
    kernels: str | None

    @property
    def stem(self) -> str:
        """What its files are called, without their ends."""
        text = json.dumps(encode(self), sort_keys=True)
        return f"{self.component}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def key_of(
    bundle: Bundle,
    component: str,
    limits: Limits,
    *,
    device: str,
    form: Form,
    runtime: str,
    gpu: str | None,
) -> Key:
    """The key of a component's engine; arguments as in `Key`."""
    kernels = None
    if form == "plugin" and ptx.MANIFEST.is_file():
        # It lists the kernels, which are copied into engines, by their hashes.
        kernels = hashlib.sha256(ptx.MANIFEST.read_bytes()).hexdigest()
    return Key(
        device=device,
        form=form,
        component=component,
        runtime=runtime,
        gpu=gpu,
        edgedec=version("edgedec"),
        limits=limits,
        files=files_of(bundle, component),
        place=_place(bundle.manifest, component),
        lowering=_sources(),
        kernels=kernels,
    )


def files_of(bundle: Bundle, component: str) -> dict[str, str]:
    """The files that a component's graph is in -> SHA-256, as the bundle's manifest has it."""
    file = bundle.manifest.components[component].file
    graph = read_onnx(bundle.path(file).read_bytes())
    names = {file, *(reference.location for reference in graph.external)}
    return {name: bundle.manifest.files[name].sha256 for name in sorted(names)}


def _place(manifest: Manifest, component: str) -> str:
    codes = manifest.codebooks
    matrices = None if codes is None else codes.matrices.get(component)
    said = manifest.encoder, manifest.head, manifest.stages, matrices
    return hashlib.sha256(repr(said).encode()).hexdigest()


@cache
def _sources() -> str:
    """Of the files of `edgedec.devices.gpu.lowering` and the passes that it uses."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for part in ("gpu/lowering", "passes"):
        for path in sorted((folder / part).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class EngineCache:
    """Engines in a folder, with their facts beside them.

    Args:
        folder: is made when something is kept; None for the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / FOLDER if folder is None else folder

    @contextmanager
    def lock(self, key: Key) -> Iterator[None]:
        """One process at a time looks for an engine, and builds it.

        Raises:
            DeviceError: the folder cannot be written.
        """
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{key.stem}{LOCK}")
            lock.acquire()
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def find(self, key: Key) -> bytes | None:
        """The engine of a key; None where there is none, or a damaged one."""
        engine, facts = self._paths(key)
        try:
            data = engine.read_bytes()
            known = decode(Facts, json.loads(facts.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # SchemaError and broken JSON are ValueErrors
            logger.info("%s is damaged (%s): it is built again", engine.name, error)
            return None
        if not known.fits(data):
            logger.info("%s is damaged: it is built again", engine.name)
            return None
        return data

    def keep(self, key: Key, engine: bytes, facts: Facts) -> None:
        """Write an engine and its facts; a reader sees both or none.

        Raises:
            DeviceError: the folder cannot be written.
        """
        write_engine(self.folder, key.stem, engine, facts)

    def kernels(self, key: Key) -> Path:
        """The file of what TensorRT-RTX compiles for an engine, which may not be there yet."""
        return self.folder / f"{key.stem}{KERNELS}"

    def _paths(self, key: Key) -> tuple[Path, Path]:
        return self.folder / f"{key.stem}{ENGINE}", self.folder / f"{key.stem}{FACTS}"


def write_engine(folder: Path, stem: str, engine: bytes, facts: Facts) -> tuple[Path, Path]:
    """Write an engine and its facts, the facts last: who finds them finds the engine.

    Returns:
        The two files.

    Raises:
        DeviceError: the folder cannot be written.
    """
    text = json.dumps(encode(facts), indent=1, sort_keys=True) + "\n"
    paths = folder / f"{stem}{ENGINE}", folder / f"{stem}{FACTS}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[1].unlink(missing_ok=True)
        for path, data in zip(paths, (engine, text.encode()), strict=True):
            _write(path, data)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return paths


def _write(path: Path, data: bytes) -> None:
    """Write a file that appears when it is complete."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _unwritable(folder: Path, error: OSError) -> DeviceError:
    return DeviceError(
        f"cannot keep engines in {folder} ({error.strerror}): set EDGEDEC_CACHE to a folder that "
        "can be written."
    )
