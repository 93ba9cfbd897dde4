"""What quantizing keeps until it is done: the floating-point bundle, and finished matrices."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.export import pipeline
from edgedec.export.bundle import Progress
from edgedec.export.learn import Choice, Key
from edgedec.export.leftovers import sweep
from edgedec.export.work_folder import work_folder
from edgedec.quantize.options import QuantizeOptions
from edgedec.runtime.bundle import Bundle, open_bundle, verify_files
from edgedec.runtime.manifest import MANIFEST

OF_CHECKPOINTS = ("revision", "tokenizer", "via", "stages", "depth", "base")
"""Options that say how to export a checkpoint."""
FINISHED = "finished"
"""The folder of finished matrices."""


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that goes when the block succeeds.

    It stays where the block fails and finished matrices are in it, so that the next try goes on
    with them; the next export to ``out`` removes one that is a day old.
    """
    work = out.parent / f".{out.name}.quantizing"
    sweep(out.parent, glob.escape(work.name))
    finished = work / FINISHED
    with work_folder(work, out, lambda: finished.is_dir() and any(finished.iterdir())):
        yield work


def refuse_inside(source: str, out: Path) -> None:
    """Refuse a result that would replace what it is made of.

    Raises:
        InputError: one of the two is, or is inside of, the other.
    """
    given, made = Path(source).resolve(), out.resolve()
    if given.exists() and (given in {made, *made.parents} or made in given.parents):
        raise InputError(
            f"-o {str(out)!r} would replace {source!r} or lie inside of it: rename it."
        )


def source_bundle(source: str) -> Bundle:
    """A bundle to make another one of, of which every byte is as it was exported.

    Raises:
        BundleError: it is damaged.
        InputError: it is one for an NPU.
    """
    bundle = open_bundle(source)
    if bundle.manifest.static is not None:
        raise InputError(
            f"the graphs of {source!r} have fixed shapes already, for an NPU: give the checkpoint "
            "or bundle that it was made from."
        )
    verify_files(bundle)  # damaged weights would get a fresh checksum
    return bundle


class CheckpointOptions(Protocol):
    """What says how to export a checkpoint: see `edgedec.export.export_checkpoint`."""

    @property
    def revision(self) -> str | None:
        """Of a hub id."""

    @property
    def tokenizer(self) -> str | None:
        """Folder of another one."""

    @property
    def via(self) -> str | None:
        """The route of an architecture without a family."""

    @property
    def stages(self) -> str | None:
        """Where to cut the decoder."""

    @property
    def depth(self) -> tuple[str, ...]:
        """Policies to make it for."""

    @property
    def base(self) -> str | None:
        """Of an adapter alone."""

    @property
    def verify(self) -> bool:
        """Whether to compare with the reference."""


def float_bundle(source: str, work: Path, options: CheckpointOptions, progress: Progress) -> Bundle:
    """The source as a bundle: itself, or an export with floating-point weights into ``work``.

    Raises:
        InputError: options for checkpoints beside a bundle, or a bundle for an NPU.
        EdgedecError: as `edgedec.export.export_checkpoint`.
    """
    if (Path(source) / MANIFEST).is_file():
        given = [name for name in OF_CHECKPOINTS if getattr(options, name)]
        if given:
            raise InputError(
                f"--{given[0]} says how to export a checkpoint, but {source!r} is a bundle: leave "
                "it out, or give the checkpoint."
            )
        return source_bundle(source)
    folder = pipeline.run(
        source,
        work / "float",
        pipeline.Options(
            stages=options.stages,
            dtype="fp32",
            revision=options.revision,
            tokenizer=options.tokenizer,
            via=options.via,
            verify=options.verify,
            force=True,
            depth=options.depth,
            base=options.base,
        ),
        progress,
    )
    return open_bundle(folder)


def work_key(
    files: Mapping[str, str],
    options: QuantizeOptions,
    choices: Mapping[Key, Choice],
    arrays: Iterable[NDArray[Any] | None],
) -> str:
    """Equal where everything is that the codes depend on.

    Args:
        files: of the model, with their digests.
        options: how it is quantized.
        choices: key of a matrix -> bits and method.
        arrays: what it is calibrated on.
    """
    facts = [
        version("edgedec"),
        dict(sorted(files.items())),
        sorted((*key, choice.bits, choice.method.name) for key, choice in choices.items()),
        asdict(options.settings),
        options.sequential,
    ]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
