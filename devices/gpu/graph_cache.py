"""Resident graphs in the engine cache: lowered once for a bundle, then opened as they are."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedec.devices.gpu.engine_cache import EngineCache, Key
from edgedec.errors import DeviceError
from edgedec.runtime.manifest import FileEntry
from edgedec.runtime.schema import decode, encode

if TYPE_CHECKING:  # a cached graph needs none of it
    from edgedec.devices.gpu.lowering import Resident

logger = logging.getLogger(__name__)
FACTS = "kept.json"


@dataclass(frozen=True)
class Kept:
    """A graph in the cache.

    Attributes:
        graph: name of its file.
        expanded: bytes that numbers take in the place of codes.
        files: what its folder holds beside these facts.
    """

    graph: str
    expanded: int
    files: dict[str, FileEntry]


def kept_graph(cache: EngineCache, key: Key, make: Callable[[], Resident]) -> tuple[Path, Kept]:
    """A component's resident graph, from the cache if it is there.

    Args:
        cache: the cache.
        key: everything that the graph depends on.
        make: lowers the graph; called where the cache has none, or a damaged one.

    Returns:
        The graph's file, and its facts.

    Raises:
        DeviceError: the cache cannot be written.
    """
    folder = cache.folder / key.stem
    with cache.lock(key):
        kept = _find(folder)
        if kept is None:
            try:
                kept = _keep(folder, make())
            except OSError as error:
                raise DeviceError(
                    f"cannot keep a graph in {cache.folder} ({error.strerror}): set EDGEDEC_CACHE "
                    "to a folder that can be written."
                ) from error
    return folder / kept.graph, kept


def _find(folder: Path) -> Kept | None:
    """The facts of a graph whose files are all as they were written."""
    try:
        kept = decode(Kept, json.loads((folder / FACTS).read_text(encoding="utf-8")))
        whole = all(_entry(folder / name) == entry for name, entry in kept.files.items())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # SchemaError and broken JSON are ValueErrors
        logger.info("%s is damaged (%s): it is made again", folder.name, error)
        return None
    if not whole or kept.graph not in kept.files:
        logger.info("%s is damaged: it is made again", folder.name)
        return None
    return kept


def _keep(folder: Path, resident: Resident) -> Kept:
    """Write a graph; its folder appears when it is complete."""
    from edgedec.devices.gpu.lowering import save_resident

    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        graph = save_resident(resident, work)
        files = {path.name: _entry(path) for path in sorted(work.iterdir())}
        kept = Kept(graph.name, resident.expanded, files)
        (work / FACTS).write_text(json.dumps(encode(kept), indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return kept


def _entry(path: Path) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())
