"""Several methods on one model: what each takes, and what it costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from statistics import fmean

from edgedec.errors import InputError
from edgedec.export.bundle import Progress
from edgedec.export.changed import changed_bundle
from edgedec.export.floats import float_graphs
from edgedec.export.learn import find_sites
from edgedec.export.model import Model, agreement, available_threads, open_model, task_scores
from edgedec.export.quantized import (
    PATH,
    divergence,
    quantize_model,
    scheme_of,
    uniform_choices,
)
from edgedec.export.workplace import float_bundle
from edgedec.quantize.calibration.calibrate import score
from edgedec.quantize.methods import METHODS
from edgedec.quantize.options import MIXED, QuantizeOptions
from edgedec.quantize.pool import Pool
from edgedec.quantize.reporting.report import Compared, Comparison, Score

FLOAT = "float32"


def compare_methods(
    source: str | PathLike[str],
    options: QuantizeOptions,
    methods: Sequence[str],
    progress: Progress,
) -> Comparison:
    """Quantize a model in several ways, in memory, and measure each.

    Products are computed in float32, so that weights alone make the difference.

    Args:
        source: checkpoint, hub id or bundle.
        options: how; its ``method`` is not looked at.
        methods: names; those that cannot do with so many bits are left out.
        progress: told what is being done, and which fraction of it is.

    Raises:
        InputError: an unknown method, or mixed bits.
        EdgedecError: as `edgedec.export.quantized.quantize_source`.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"--method {unknown[0]!r}: choose one of {', '.join(METHODS)}.")
    if options.bits == MIXED:
        raise InputError("--compare with --bits mixed: compare methods at 2, 3, 4 or 8 bits.")
    bits = int(options.bits)
    with (
        tempfile.TemporaryDirectory(prefix="edgedec-") as scratch,
        Pool(options.threads or available_threads()) as pool,
    ):
        bundle = float_bundle(fspath(source), Path(scratch), options, progress)
        graphs = float_graphs(bundle, options.settings)
        sites = find_sites(graphs)
        model = open_model(bundle, graphs, sites, options, pool, Path(scratch), progress)
        possible = [name for name in methods if bits in METHODS[name].bits]
        rows = [_compared(model, options, name, progress) for name in possible]
        rows.insert(0, _unchanged(model, progress))
    return Comparison(bundle.manifest.source.id, bits, model.calibration.text, tuple(rows))


def _unchanged(model: Model, progress: Progress) -> Compared:
    """The model as it was."""
    measured = model.evaluation or model.calibration
    same = score(model.program, measured.batches, {PATH: lambda _: None}, model.pool)[PATH]
    return Compared(
        method=FLOAT,
        stored=True,
        bits_per_weight=32.0,
        output_error=0.0,
        agreement=agreement(measured, same),
        scores=task_scores(model.bundle, model.pairs, model.pool, progress),
        seconds=None,
    )


def _compared(model: Model, options: QuantizeOptions, name: str, progress: Progress) -> Compared:
    method = METHODS[name]
    choices = uniform_choices(model.sites, scheme_of(options), method)
    begin = time.perf_counter()
    quantizer, found = quantize_model(
        model,
        options,
        choices,
        None,
        lambda fraction: progress(f"quantizing with {name}", fraction),
    )
    seconds = time.perf_counter() - begin
    measured = model.calibration
    if model.evaluation is not None:
        measured, found = model.evaluation, divergence(model, quantizer)
    reports = quantizer.reports.values()
    weights = sum(report.weights for report in reports)
    scores: tuple[Score, ...] = ()
    if model.pairs:
        with changed_bundle(model, quantizer, options.settings) as changed:
            scores = task_scores(changed, model.pairs, model.pool, progress)
    return Compared(
        method=name,
        stored=method.stored,
        bits_per_weight=8 * sum(report.bytes for report in reports) / weights,
        output_error=fmean(report.output_error for report in reports),
        agreement=agreement(measured, found),
        scores=scores,
        seconds=seconds,
    )
