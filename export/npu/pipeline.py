"""The steps of an export for an NPU, in order."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path

from edgedec.devices.base import Device, get_device
from edgedec.devices.npu.lower import TARGETS, Shapes, StaticModel, lower_static
from edgedec.devices.npu.precision import PRECISIONS, Range, apply_precision, weights_of
from edgedec.errors import DeviceError
from edgedec.export.bundle import Progress, new_folder, write_file
from edgedec.export.calibration import Calibration
from edgedec.export.floats import wide_graphs
from edgedec.export.model import available_threads
from edgedec.export.npu.contexts import compile_bundle
from edgedec.export.npu.gate import each_part, refuse_difference, shown
from edgedec.export.npu.options import NpuOptions, check_unroll, shapes_of
from edgedec.export.npu.ranges import observe_ranges
from edgedec.export.npu.sensitivity import choose_eight
from edgedec.export.npu.texts import passages_of, read_text
from edgedec.export.npu.verify import compare, devices_of
from edgedec.export.npu.writing import write_bundle
from edgedec.export.passages import Passage, limited, unrounded
from edgedec.export.places import Place, place_in
from edgedec.export.workplace import float_bundle, refuse_inside, workplace
from edgedec.quantize.pool import Pool
from edgedec.quantize.text.text_files import read_pairs
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import MANIFEST, Agreement, dump_manifest, load_manifest
from edgedec.runtime.text import Tokenizer

logger = logging.getLogger(__name__)


def export_npu(
    source: str | PathLike[str],
    out: str | PathLike[str],
    options: NpuOptions,
    progress: Progress,
) -> Path:
    """Make a bundle for an NPU of a checkpoint, or of another bundle.

    Args:
        source: checkpoint, hub id, or a bundle, which may have codes.
        out: the bundle to write.
        options: how.
        progress: told what is being done, and which fraction of it is.

    Raises:
        InputError: options that do not fit the model, or a model that cannot be lowered.
        DeviceError: the NPU's tools are not installed, or refuse a graph.
        CheckFailedError: the NPU chooses other tokens than the model.
        EdgedecError: as `edgedec.export.export_checkpoint`.
    """
    target = Path(out)
    refuse_inside(fspath(source), target)
    if options.calibration is not None:
        read_pairs(options.calibration)  # what is wrong with it shall not be said after long work
    devices = _available(options)
    with new_folder(target, force=options.force) as folder, workplace(target) as work:
        base = float_bundle(fspath(source), work, options, progress)
        found = place_in(options.device, encodes=base.manifest.encoder is not None)
        shapes = shapes_of(base.manifest, options)
        check_unroll(base.manifest, options)
        progress("lowering", 0.0)
        model = lower_static(
            wide_graphs(base), base.manifest, shapes, TARGETS[found.device], found.parts
        )
        run = _Run(base, options, found, shapes, model, work, progress)
        run.store()
        written = run.write(folder if not options.socs else run.scratch())
        if options.verify:
            written = run.verified(written, devices)
        if options.socs:
            written = compile_bundle(base, written, options, found, folder, progress)
        text = dump_manifest(written.manifest)
        load_manifest(text)  # what no reader takes is not written
        write_file(folder / MANIFEST, text.encode())
    return target


def _available(options: NpuOptions) -> tuple[str, ...]:
    """The devices to verify on; none where none is needed.

    Raises:
        DeviceError: it is needed, and its tools are not installed.
    """
    if not options.verify and not options.socs:
        return ()
    names = devices_of(options)
    device: Device = get_device(names[0])
    report = device.report()
    if not report.available:
        why = (report.reason or "it is not available here").rstrip(".")
        also = "" if options.socs else ", or export with --no-verify"
        raise DeviceError(f"--device {options.device} cannot be verified here: {why}{also}.")
    return names


class _Run:
    """One export: what its steps have in common."""

    def __init__(
        self,
        base: Bundle,
        options: NpuOptions,
        place: Place,
        shapes: Shapes,
        model: StaticModel,
        work: Path,
        progress: Progress,
    ) -> None:
        self.base, self.options, self.place, self.shapes = base, options, place, shapes
        self.model, self.work, self.progress = model, work, progress
        self._bundle = limited(base, shapes.source, shapes.target)
        self._exact: Generator | None = None
        self._text: Calibration | None = None
        self._passages: list[Passage] | None = None

    @property
    def exact(self) -> Generator:
        """The model as it was, opened on first use."""
        if self._exact is None:
            self._exact = Generator(unrounded(self._bundle, self.work / "exact"), device="cpu")
        return self._exact

    @property
    def text(self) -> Calibration:
        """The calibration text, read on first use."""
        if self._text is None:
            path = self.options.calibration
            self._text = read_text(self._bundle, path, self.exact, self.progress)
        return self._text

    @property
    def passages(self) -> list[Passage]:
        """What the graphs are fed, likewise."""
        if self._passages is None:
            self._passages = passages_of(self._bundle, self.text, self.exact, self.progress)
        return self._passages

    def scratch(self) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp(dir=self.work))

    def write(self, folder: Path) -> Bundle:
        """Write the model as it is now."""
        options, model = self.options, self.model
        return write_bundle(
            self.base, model, self.shapes, self.place, options.precision, folder, self.progress
        )

    def store(self) -> None:
        """Let the model have the numbers that it shall be stored in."""
        options = self.options
        needed = PRECISIONS[options.precision].needs_ranges(options.stored)
        ranges: Mapping[str, Mapping[str, Range]] | None = None
        if needed:
            written = self.write(self.scratch())
            ranges = observe_ranges(self.exact, self.model, written, self.passages, self.progress)
        self.progress("storing weights", 0.0)
        eight = () if options.budget is None else self._eight(options.budget)
        apply_precision(
            self.model, options.precision, kv=options.stored, eight=eight, ranges=ranges
        )

    def _eight(self, budget: float) -> tuple[str, ...]:
        """The weights that keep 8 bits."""
        with Pool(available_threads()) as pool:
            return choose_eight(
                self.base,
                self.text.batches,
                weights_of(self.model),
                self.options.precision,
                budget,
                pool=pool,
                scratch=self.scratch(),
                progress=self.progress,
            )

    def verified(self, written: Bundle, devices: Sequence[str]) -> Bundle:
        """The bundle with what its graphs choose, compared with the model's choices.

        Raises:
            CheckFailedError: they choose other tokens, or the NPU computes other numbers.
        """
        compared = compare(self.exact, written, self.place, devices, self.passages, self.progress)
        found = compared.agreement(self.text.text.name)
        refuse_difference(
            compared,
            found,
            self.options,
            self._describe,
            lambda: each_part(compared, written, self.place, self.progress),
        )
        _tell(found)
        assert written.manifest.static is not None
        static = replace(written.manifest.static, agreement=found)
        return replace(written, manifest=replace(written.manifest, static=static))

    def _describe(self, passage: Passage) -> str:
        """A passage in a sentence: its text, or its tokens where there is no tokenizer."""
        files = self.base.manifest.files
        if "tokenizer.json" not in files:
            return shown(" ".join(map(str, passage.read)))
        tokenizer = Tokenizer.open(self.base.path("tokenizer.json"))
        return shown(tokenizer.decode(list(passage.read)))


def _tell(found: Agreement) -> None:
    logger.info(
        "the graphs choose as the floating-point model does: %.3f of %d tokens on the NPU (%s), "
        "%.3f of %d on the CPU",
        *(found.device, found.device_tokens, found.soc, found.cpu, found.tokens),
    )
