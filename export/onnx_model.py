"""Quantize an ONNX model that is no bundle: any graph with products that have constant matrices."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgedec.devices.base import codebook_device
from edgedec.errors import InputError
from edgedec.export.arrays import read_arrays
from edgedec.export.bundle import Progress
from edgedec.export.codebooks import ROUNDED, Lowered, lower, write_in_fp32
from edgedec.export.coded import coded_outputs, coded_program
from edgedec.export.learn import Choice, Key, Quantizer, Sites, find_sites, keys_of
from edgedec.export.model import available_threads
from edgedec.export.onnx_graph import (
    computed_outputs,
    digests,
    files_of,
    load_graph,
    new_model,
    opaque,
    open_session,
    save_graph,
)
from edgedec.export.pipeline import DEVICE
from edgedec.export.quantized import (
    compute_of,
    head_statistics,
    quantize_without_text,
    scheme_of,
    stored_method,
    uniform_choices,
)
from edgedec.export.verify import verify_outputs
from edgedec.export.workplace import FINISHED, work_key, workplace
from edgedec.quantize.calibration.calibrate import Learner, compare_outputs, learn_steps
from edgedec.quantize.calibration.inputs import GivenInputs
from edgedec.quantize.calibration.segments import cut
from edgedec.quantize.calibration.walk import FLOAT, Walk
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Array
from edgedec.quantize.options import MIXED, QuantizeOptions
from edgedec.quantize.pool import Pool
from edgedec.quantize.reporting.report import OutputChange, QuantizationReport, Text
from edgedec.quantize.statistics import Statistics
from edgedec.quantize.store import Store
from edgedec.runtime.session import first_line

COMPONENT = "model"
PATH = "codes"
OF_BUNDLES = {
    "evaluation": "--eval",
    "tokens": "--tokens",
    "stages": "--stages",
    "depth": "--depth",
    "base": "--base",
    "revision": "--revision",
    "tokenizer": "--tokenizer",
    "via": "--via",
}
"""Options that say nothing of a bare graph."""


def quantize_onnx(
    source: str | PathLike[str],
    out: str | PathLike[str],
    options: QuantizeOptions,
    progress: Progress,
) -> QuantizationReport:
    """Put codes in the place of the constant float32 matrices of an ONNX model.

    Products and token tables become operators of edgedec with function bodies in standard ones;
    all else stays as it is.

    Args:
        source: an ONNX model, with its weights inside or beside it.
        out: the model to write; large weights go into ``{out}.data``.
        options: how; ``calibration`` is a ``.npz`` archive with an array for each input of the
            graph, or a folder of such archives, and may be None for methods that need no text.
        progress: told what is being done, and which fraction of it is.

    Raises:
        InputError: options, a model or arrays that cannot be used.
        CheckFailedError: the graph does not compute what it should.
        EdgedecError: as `edgedec.export.export_checkpoint`.
    """
    begin = time.perf_counter()
    _refuse(options)
    compute, scheme = compute_of(options), scheme_of(options)
    method = stored_method(options.method)
    source, target = Path(source), Path(out)
    threads = options.threads or available_threads()
    if not source.is_file():
        raise InputError(f"{str(source)!r}: there is no such file.")
    session = open_session(source, threads)
    graphs = {COMPONENT: load_graph(source)}
    sites = find_sites(graphs)
    if not any(sites.values()):
        raise InputError(
            f"{str(source)!r} has nothing to quantize: no MatMul or Gemm with a constant float32 "
            "matrix of at least 8 rows and columns."
        )
    choices = uniform_choices(sites, scheme, method)
    if options.calibration is None and any(c.method.calibrated for c in choices.values()):
        raise InputError(
            f"--method {options.method} learns from what the model reads: name a .npz file with "
            "its inputs, or a folder of them, with --calib, or use --method kmeans, which needs "
            "none."
        )
    files = files_of(source, graphs[COMPONENT].graph)
    with (
        new_model(target, files, force=options.force) as folder,
        workplace(target) as work,
        Pool(threads) as pool,
    ):
        batches: list[GivenInputs] = []
        found = _Found(None, ())
        if options.calibration is None:
            quantizer = Quantizer(keys_of(sites), choices, options.settings, {}, pool, None)
            quantize_without_text(sites, quantizer, progress)
        else:
            given, originals = _read(source, graphs[COMPONENT], options.calibration, session)
            batches = [*given.values()]
            store = Store(
                work / FINISHED,
                work_key(digests(files), options, choices, _all_arrays(batches)),
            )
            quantizer, found = _learn(
                graphs, sites, options, choices, batches, originals, pool, store, work, progress
            )
        coded = {COMPONENT: load_graph(source)}
        lowered = lower(
            coded,
            codebook_device(DEVICE),
            quantizer.tensors,
            compute,
            scheme=scheme.name,
            method=options.method,
            portable=True,
        )
        save_graph(coded[COMPONENT], folder / target.name)
        if options.verify:
            _check(source, folder / target.name, lowered, batches[:1], pool, progress)
    return QuantizationReport(
        source=source.name,
        method=options.method,
        bits=str(options.bits),
        budget=None,
        sequential=options.sequential,
        settings=options.settings,
        calibration=found.text,
        matrices=tuple(quantizer.reports.values()),
        agreements=(),
        task=None,
        seconds=time.perf_counter() - begin,
        outputs=found.outputs,
    )


@dataclass(frozen=True)
class _Found:
    """What calibrating says beside the codes."""

    text: Text | None
    outputs: tuple[OutputChange, ...]


def _refuse(options: QuantizeOptions) -> None:
    if options.bits == MIXED:
        raise InputError(
            "--bits mixed looks at a model's predictions, and an ONNX model may have none: choose "
            "2, 3, 4 or 8."
        )
    for field in fields(options):
        if field.name in OF_BUNDLES and getattr(options, field.name) != field.default:
            raise InputError(
                f"{OF_BUNDLES[field.name]} is for checkpoints and bundles: leave it out for an "
                "ONNX model."
            )


def _read(
    source: Path, model: ir.Model, calibration: Path, session: Any
) -> tuple[dict[Path, GivenInputs], list[NDArray[Any]]]:
    """All batches, and what the model as it is makes of the first."""
    node = opaque(model.graph)
    if node is not None:
        raise InputError(
            f"{str(source)!r} has control flow or sequences ({node.op_type} {node.name!r}), "
            "through which nothing can be learned: use a method that needs no text (--method "
            "kmeans, without --calib)."
        )
    batches = read_arrays(calibration, model.graph.inputs)
    names = computed_outputs(model.graph)
    originals: list[NDArray[Any]] = []
    for file, batch in batches.items():
        try:
            found = session.run(names, dict(batch.arrays))
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise InputError(
                f"{source.name} fails on the arrays of {str(file)!r}: {first_line(error)}"
            ) from error
        originals = originals or found
    return batches, originals


def _learn(
    graphs: Mapping[str, ir.Model],
    sites: Sites,
    options: QuantizeOptions,
    choices: Mapping[Key, Choice],
    batches: Sequence[GivenInputs],
    originals: Sequence[NDArray[Any]],
    pool: Pool,
    store: Store,
    scratch: Path,
    progress: Progress,
) -> tuple[Quantizer, _Found]:
    """Quantize all matrices in the order in which the graph uses them."""
    assert options.calibration is not None
    names = computed_outputs(graphs[COMPONENT].graph)
    program = cut(graphs, sites, names)
    ends = head_statistics(program, batches, sites, choices, pool, scratch=scratch)
    quantizer = Quantizer(keys_of(sites), choices, options.settings, ends, pool, store)
    most = 0

    def learn(matrices: Sequence[Matrix], statistics: Statistics | None) -> Mapping[str, Array]:
        nonlocal most
        if statistics is not None:
            most = max(most, statistics.tokens)
            if not (np.isfinite(statistics.plain).all() and np.isfinite(statistics.inputs).all()):
                raise InputError(
                    f"the inputs of {matrices[0].name!r} are not finite on "
                    f"{str(options.calibration)!r}: give arrays as the model sees them in use."
                )
        return quantizer(matrices, statistics)

    with Walk(program, batches, pool, paths=(PATH,), scratch=scratch) as walk:
        learn_steps(
            walk,
            {PATH: Learner(learn, options.sequential)},
            pool,
            lambda fraction: progress("quantizing", fraction),
        )
        if options.verify:
            verify_outputs(names, walk.outputs(FLOAT, 0), originals)
        errors = compare_outputs(walk, PATH, pool)
    text = Text(options.calibration.name, len(batches), most)
    return quantizer, _Found(text, tuple(map(OutputChange, names, errors)))


def _check(
    source: Path,
    out: Path,
    lowered: Lowered,
    batches: Sequence[GivenInputs],
    pool: Pool,
    progress: Progress,
) -> None:
    """Hold the graph, with products in float32, against another with what its codes stand for."""
    progress("verifying", 0.0)
    exact = out.with_name(f"{out.name}.fp32")
    write_in_fp32(out, exact)
    session = open_session(exact, pool.threads, ours=True)
    for batch in batches:
        model = load_graph(source)
        names = computed_outputs(model.graph)
        program = coded_program({COMPONENT: model}, names)
        expected = coded_outputs(program, lowered.values, ROUNDED["fp32"], batch, pool)
        verify_outputs(names, session.run(names, dict(batch.arrays)), expected)
    progress("verifying", 1.0)


def _all_arrays(batches: Sequence[GivenInputs]) -> list[NDArray[Any]]:
    return [batch.arrays[name] for batch in batches for name in sorted(batch.arrays)]
