"""The last step of an export for a GPU: limits, devices, checks, engines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from edgedec.errors import InputError
from edgedec.export.bundle import Progress, copy_file, new_folder, write_file
from edgedec.export.gpu.engines import ENGINES, refuse_unavailable, try_builds, write_engines
from edgedec.export.gpu.options import GpuOptions, asked_limits
from edgedec.export.gpu.verify import verify_resident
from edgedec.export.places import place_in
from edgedec.export.workplace import refuse_inside, source_bundle
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import MANIFEST, Manifest, dump_manifest, load_manifest


class GpuFinish:
    """Makes an ordinary bundle one for a GPU: its files stay as they are.

    Args:
        options: what was asked for.
        engines: an empty folder for engines, None for none.
    """

    def __init__(self, options: GpuOptions, engines: Path | None) -> None:
        self._options, self._engines = options, engines

    def check(self, manifest: Manifest) -> None:
        """Refuse limits and parts that the model does not have.

        Raises:
            InputError: with what to do.
        """
        place_in(self._options.device, encodes=manifest.encoder is not None)
        asked_limits(manifest, self._options)

    def finish(self, bundle: Bundle, progress: Progress) -> Manifest:
        """Note limits and devices, and check what is made of the graphs for the GPU.

        Raises:
            InputError: a graph that cannot be lowered.
            CheckFailedError: what was made of it computes other numbers.
            DeviceError: TensorRT refuses it.
        """
        options = self._options
        old = bundle.manifest
        place = place_in(options.device, encodes=old.encoder is not None)
        limits = asked_limits(old, options)
        manifest = replace(
            old,
            producer=f"edgedec {version('edgedec')}",
            limits=limits,
            components={
                name: replace(component, device=place.device_of(name == old.encoder))
                for name, component in old.components.items()
            },
        )
        made = Bundle(bundle.folder, manifest)
        # Named like the unfinished bundle: the next export removes what a killed one leaves.
        folder = bundle.folder
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as work:
            if options.verify:
                verify_resident(made, options, place, limits, Path(work), progress)
        if self._engines is not None:
            write_engines(made, place, limits, self._engines, progress)
        elif options.verify and place.device != "cuda":
            try_builds(made, place, limits, progress)
        return manifest


@contextmanager
def finishing(options: GpuOptions, out: Path) -> Iterator[GpuFinish]:
    """What finishes an export to ``out``; engines appear when the block succeeds.

    Raises:
        InputError: a folder for engines that must not be replaced.
        DeviceError: engines cannot be built here.
    """
    if options.engines is None:
        yield GpuFinish(options, None)
        return
    engines, bundle = options.engines.resolve(), out.resolve()
    if engines in {bundle, *bundle.parents} or bundle in engines.parents:
        raise InputError(
            f"--engines {str(options.engines)!r} and -o {str(out)!r} lie inside of each other: "
            "name two folders."
        )
    refuse_unavailable(options.place.device)
    with new_folder(options.engines, force=options.force, kind=ENGINES) as folder:
        yield GpuFinish(options, folder)


def finish_bundle(
    source: Path, out: Path, finish: GpuFinish, progress: Progress, *, force: bool
) -> Path:
    """Copy a bundle, and make the copy one for a GPU.

    Args:
        source: a bundle with graphs of any length.
        out: the bundle to write.
        finish: makes it one for a GPU.
        progress: told what is being done.
        force: whether ``out`` may be replaced.

    Raises:
        InputError: graphs of fixed shapes, or limits beyond the model's.
        BundleError: the source is damaged.
        EdgedecError: as `GpuFinish.finish`.
    """
    refuse_inside(os.fspath(source), out)
    base = source_bundle(os.fspath(source))
    finish.check(base.manifest)
    with new_folder(out, force=force) as folder:
        names = list(base.manifest.files)
        for done, name in enumerate(names):
            progress("copying", done / len(names))
            copy_file(base.path(name), folder / name)
        manifest = finish.finish(Bundle(folder, base.manifest), progress)
        text = dump_manifest(manifest)
        load_manifest(text)  # what no reader takes is not written
        write_file(folder / MANIFEST, text.encode())
    return out
