"""Checkpoints that come with the package, and the user's cache of their bundles.

A built-in checkpoint is a folder `edgedec/checkpoints/<name>/`, laid out as on the Hugging Face
hub. Its bundle is exported on first use. The cache key holds a hash of the checkpoint's files, so
new weights make a new bundle and need no change here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgedec.errors import BundleError

CHECKPOINTS = Path(__file__).parent / "checkpoints"
MANIFEST = "edgedec.json"


def builtin_names() -> list[str]:
    """List the built-in checkpoints."""
    return sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))


def builtin_checkpoint(name: str) -> Path | None:
    """Return the folder of a built-in checkpoint; None for any other name or an existing path."""
    return CHECKPOINTS / name if name in builtin_names() and not Path(name).exists() else None


def cache_folder() -> Path:
    """Return the user's cache: EDGEDEC_CACHE, or `edgedec` in the platform's place for caches."""
    if chosen := os.environ.get("EDGEDEC_CACHE"):
        return Path(chosen).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "edgedec"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgedec"
    if local := os.environ.get("LOCALAPPDATA") if os.name == "nt" else None:
        return Path(local) / "edgedec" / "Cache"
    return Path.home() / ".cache" / "edgedec"


def resolve_bundle(name: str | os.PathLike[str], note: Callable[[str], None] | None = None) -> Path:
    """Find the bundle that a user means.

    A folder with a manifest wins over a built-in name; a built-in checkpoint is exported into the
    cache when it is asked for the first time.

    Args:
        name: A bundle folder or the name of a built-in checkpoint.
        note: Called with one sentence before anything that takes more than a moment.

    Raises:
        BundleError: there is neither such a bundle nor such a built-in checkpoint, or the cache
            cannot be written.
    """
    path = Path(name)
    try:
        if (path / MANIFEST).is_file():
            return path
    except OSError as error:  # a text in place of a name is too long for one
        raise BundleError(f"There is no bundle {str(name)[:80]!r}: {error.strerror}.") from error
    names = builtin_names()
    if str(name) in names:
        return _cached(str(name), note)
    if path.is_dir():
        if (path / "config.json").is_file():
            raise BundleError(
                f"{path} is a checkpoint, not a bundle: run `edgedec export {path} -o OUT` first."
            )
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.")
    if path.is_file():
        raise BundleError(f"{path} is a file; a bundle is a folder with {MANIFEST} in it.")
    raise BundleError(
        f"There is no bundle {path} and no built-in checkpoint of that name (built in: "
        f"{', '.join(names) or 'none'}); `edgedec export CHECKPOINT -o {path}` makes a bundle."
    )


def _cached(name: str, note: Callable[[str], None] | None) -> Path:
    checkpoint = CHECKPOINTS / name
    home = cache_folder() / "builtin"
    bundle = home / f"{name}-{_key(checkpoint)}"
    if (bundle / MANIFEST).is_file():
        return bundle
    if note is not None:
        note(f"Exporting the built-in checkpoint {name} to {bundle} (first use only).")
    from edgedec.export.leftovers import sweep

    try:
        home.mkdir(parents=True, exist_ok=True)
        sweep(home, ".new-*")
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
    except OSError as error:
        raise BundleError(
            f"Cannot write to the cache {home} ({error.strerror}); set EDGEDEC_CACHE to a folder "
            "that can be written."
        ) from error
    from edgedec.export import export_checkpoint

    try:
        fresh = export_checkpoint(checkpoint, work / name)
        try:
            fresh.rename(bundle)
        except OSError:
            # Another process was first, and what it wrote is the same, byte for byte.
            if not (bundle / MANIFEST).is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return bundle


def _key(checkpoint: Path) -> str:
    from importlib.metadata import version

    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(checkpoint.iterdir()):
        if path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return f"{version('edgedec')}-{digest.hexdigest()}"
