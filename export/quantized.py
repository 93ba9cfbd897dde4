"""The steps of making a bundle with codes, in order."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from os import PathLike, fspath
from pathlib import Path

from edgedec.devices.base import codebook_device
from edgedec.errors import InputError
from edgedec.export.bundle import WEIGHTS, Progress, new_folder, save_graphs, write_file
from edgedec.export.codebooks import ROUNDED, Lowered, in_fp32, lower
from edgedec.export.coded import coded_logits, coded_program
from edgedec.export.finish import Finish
from edgedec.export.floats import every_graph, float_graphs, full_graphs
from edgedec.export.learn import (
    Choice,
    Key,
    Quantizer,
    Sites,
    find_sites,
    keys_of,
    values_key,
)
from edgedec.export.model import Model, agreement, available_threads, open_model, task_scores
from edgedec.export.pipeline import DEVICE
from edgedec.export.route import Graphs
from edgedec.export.sensitivity import mixed_choices
from edgedec.export.verify import TOLERANCE, once, verify, verify_rounding
from edgedec.export.verify_depth import verify_variants
from edgedec.export.workplace import FINISHED, float_bundle, refuse_inside, work_key, workplace
from edgedec.kernels.codebook_matmul import COMPUTES, Compute
from edgedec.quantize.calibration.calibrate import Learner, calibrate, moments, score
from edgedec.quantize.calibration.inputs import Inputs
from edgedec.quantize.calibration.scores import Divergence
from edgedec.quantize.calibration.segments import Program
from edgedec.quantize.matrices import Matrix
from edgedec.quantize.method import Array, Method
from edgedec.quantize.methods import METHODS
from edgedec.quantize.options import MIXED, QuantizeOptions
from edgedec.quantize.pool import Pool
from edgedec.quantize.reporting.report import REPORT, QuantizationReport, Task, to_json
from edgedec.quantize.scheme import SCHEMES, Scheme
from edgedec.quantize.statistics import Statistics
from edgedec.quantize.store import Store
from edgedec.quantize.text.text_files import read_pairs
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import MANIFEST, Manifest, dump_manifest, load_manifest

logger = logging.getLogger(__name__)
PATH = "codes"
CHECKED = (9, 9)
"""Source and target tokens of the check."""
EIGHT = "rtn"
"""The method for 8 bits: nothing that is learned would be seen."""


def quantize_source(
    source: str | PathLike[str],
    out: str | PathLike[str],
    options: QuantizeOptions,
    progress: Progress,
    *,
    report: bool = True,
    finish: Finish | None = None,
) -> QuantizationReport | None:
    """Make a bundle with codes of a checkpoint, or of a bundle with floating-point weights.

    Args:
        source: checkpoint, hub id or bundle.
        out: the bundle to write.
        options: how.
        progress: told what is being done, and which fraction of it is.
        report: measure what it costs, also by methods that need no text. Otherwise these give None.
        finish: what is to be done with the bundle for another device; None for nothing.

    Raises:
        InputError: options that do not fit together, or a text that cannot be used.
        EdgedecError: as `edgedec.export.export_checkpoint`.
    """
    begin = time.perf_counter()
    target = Path(out)
    refuse_inside(fspath(source), target)
    compute = compute_of(options)
    method = stored_method(options.method)
    for path in (options.calibration, options.evaluation):
        if path is not None:
            read_pairs(path)  # what is wrong with it shall not be said after a long export
    with (
        new_folder(target, force=options.force) as folder,
        workplace(target) as work,
        Pool(options.threads or available_threads()) as pool,
    ):
        bundle = float_bundle(fspath(source), work, options, progress)
        if finish is not None:
            finish.check(bundle.manifest)
        graphs = float_graphs(bundle, options.settings)
        sites = find_sites(graphs)
        scheme = scheme_of(options)
        choices = uniform_choices(sites, scheme, method)
        model = None
        if report or any(choice.method.calibrated for choice in choices.values()):
            scratch = Path(tempfile.mkdtemp(dir=work))
            model = open_model(bundle, graphs, sites, options, pool, scratch, progress)
            if options.bits == MIXED:
                choices = mixed_choices(model, options, method, progress)
            quantizer, found = learn(model, options, choices, progress, work / FINISHED)
        else:
            found = None
            quantizer = Quantizer(keys_of(sites), choices, options.settings, {}, pool, None)
            quantize_without_text(sites, quantizer, progress)
        coded = every_graph(bundle, options.settings)
        lowered = lower(
            coded,
            codebook_device(DEVICE),
            quantizer.tensors,
            compute,
            scheme=scheme.name,
            method=options.method,
            portable=options.portable,
            full=full_graphs(bundle.manifest),
        )
        manifest = _write(bundle, lowered, coded, folder, progress)
        if model is not None and found is not None:
            found = replace(found, task=_task(model, Bundle(folder, manifest), progress))
            data = to_json(found.without_times()).encode()
            files = {**manifest.files, REPORT: write_file(folder / REPORT, data)}
            manifest = replace(manifest, files=dict(sorted(files.items())))
        if options.verify:
            program = coded_program(float_graphs(bundle, options.settings))
            manifest = _verified(Bundle(folder, manifest), program, lowered, pool, progress)
        if finish is not None:
            manifest = finish.finish(Bundle(folder, manifest), progress)
        text = dump_manifest(manifest)
        load_manifest(text)  # what no reader takes is not written
        write_file(folder / MANIFEST, text.encode())
    return None if found is None else replace(found, seconds=time.perf_counter() - begin)


def stored_method(name: str) -> Method:
    """The method of that name, whose results a bundle can hold.

    Raises:
        InputError: no such method, or one that only serves comparisons.
    """
    if name not in METHODS:
        raise InputError(f"--method {name!r}: choose one of {', '.join(METHODS)}.")
    if not METHODS[name].stored:
        stored = ", ".join(method.name for method in METHODS.values() if method.stored)
        raise InputError(
            f"--method {name}: no bundle can hold its result, it is there for --compare; choose "
            f"one of {stored}."
        )
    return METHODS[name]


def scheme_of(options: QuantizeOptions) -> Scheme:
    """Which matrix gets how many bits; where they are mixed, the most that it can get."""
    if options.bits == MIXED:
        return Scheme(MIXED, bits=8, embedding_bits=options.embedding_bits or 8)
    (scheme,) = (scheme for scheme in SCHEMES.values() if scheme.bits == options.bits)
    return replace(scheme, embedding_bits=options.embedding_bits or scheme.embedding_bits)


def uniform_choices(sites: Sites, scheme: Scheme, method: Method) -> dict[Key, Choice]:
    """The same method for every matrix, with the bits of a scheme; 8 bits are only rounded.

    Raises:
        InputError: the method cannot do with so many bits.
    """
    choices = {}
    for component, some in sites.items():
        for matrix in (site.matrix for site in some):
            bits = scheme.bits_of(matrix.rows, embedding=matrix.role != "linear")
            chosen = METHODS[EIGHT] if bits == 8 else method
            if bits not in chosen.bits:
                raise InputError(
                    f"--method {method.name} makes codes of "
                    f"{' or '.join(map(str, method.bits))} bits, not of {bits}."
                )
            choices[component, matrix.name] = Choice(bits, chosen)
    return choices


def learn(
    model: Model,
    options: QuantizeOptions,
    choices: Mapping[Key, Choice],
    progress: Progress,
    finished: Path,
) -> tuple[Quantizer, QuantizationReport]:
    """Quantize all matrices in the order in which the model uses them.

    Args:
        model: what to quantize.
        options: how.
        choices: key of a matrix -> bits and method.
        progress: told the fraction of all weights that are done.
        finished: a folder to keep finished matrices in.
    """
    batches = model.calibration.batches
    files = {name: entry.sha256 for name, entry in model.bundle.manifest.files.items()}
    arrays = [a for b in batches for a in (b.source, b.source_mask, b.target, b.target_mask)]
    store = Store(finished, work_key(files, options, choices, arrays))
    quantizer, found = quantize_model(
        model, options, choices, store, lambda fraction: progress("quantizing", fraction)
    )
    agreements = [agreement(model.calibration, found)]
    if model.evaluation is not None:
        agreements.append(agreement(model.evaluation, divergence(model, quantizer)))
    report = QuantizationReport(
        source=model.bundle.manifest.source.id,
        method=options.method,
        bits=str(options.bits),
        budget=options.budget,
        sequential=options.sequential,
        settings=options.settings,
        calibration=model.calibration.text,
        matrices=tuple(quantizer.reports.values()),
        agreements=tuple(agreements),
        task=None,
        seconds=None,
    )
    return quantizer, report


def quantize_model(
    model: Model,
    options: QuantizeOptions,
    choices: Mapping[Key, Choice],
    store: Store | None,
    progress: Callable[[float], None],
) -> tuple[Quantizer, Divergence]:
    """Quantize all matrices; what came out, and how far it is on the calibration text.

    Inputs of the quantized part are computed only where a method looks at them.
    """
    batches, pool, scratch = model.calibration.batches, model.pool, model.scratch
    ends = head_statistics(model.program, batches, model.sites, choices, pool, scratch=scratch)
    quantizer = Quantizer(model.keys, choices, options.settings, ends, pool, store)
    looked_at = any(choice.method.sequential for choice in choices.values())
    learner = Learner(quantizer, options.sequential and looked_at)
    found = calibrate(
        model.program, batches, {PATH: learner}, pool, scratch=scratch, progress=progress
    )
    return quantizer, found[PATH]


def divergence(model: Model, quantizer: Quantizer) -> Divergence:
    """How far a quantized model is from what it was, on the evaluation text."""
    assert model.evaluation is not None

    def values(matrix: Matrix) -> Array:
        return quantizer.found[model.keys[id(matrix)]].dequantize()

    batches = model.evaluation.batches
    return score(model.program, batches, {PATH: values}, model.pool, scratch=model.scratch)[PATH]


def _task(model: Model, coded: Bundle, progress: Progress) -> Task | None:
    """What both models generate, against the evaluation text's targets."""
    if not model.pairs or model.evaluation is None:
        return None
    before = task_scores(model.bundle, model.pairs, model.pool, progress)
    after = task_scores(coded, model.pairs, model.pool, progress)
    return Task(model.evaluation.text.name, len(model.pairs), before, after)


def quantize_without_text(sites: Sites, quantizer: Quantizer, progress: Progress) -> None:
    """Quantize all matrices by methods that look at nothing else."""
    matrices = [site.matrix for some in sites.values() for site in some]
    total = sum(matrix.rows * matrix.columns for matrix in matrices)
    done = 0
    progress("quantizing", 0.0)
    for matrix in matrices:
        quantizer([matrix], None)
        done += matrix.rows * matrix.columns
        progress("quantizing", done / max(total, 1))


def head_statistics(
    program: Program,
    batches: Sequence[Inputs],
    sites: Sites,
    choices: Mapping[Key, Choice],
    pool: Pool,
    *,
    scratch: Path,
) -> dict[bytes, Statistics]:
    """Statistics of the head's inputs, by the head's values, where a table that is it needs them.

    A model reads its embedding first and its head last; one table is quantized once.
    """
    tables = [
        site.matrix
        for component, some in sites.items()
        for site in some
        if site.matrix.role == "embedding" and choices[component, site.matrix.name].bits < 8
    ]
    wanted = {values_key(matrix) for matrix in tables}
    found: dict[bytes, Statistics] = {}
    if wanted:

        def receive(matrices: Sequence[Matrix], statistics: Statistics) -> None:
            found.update({values_key(m): statistics for m in matrices if m.role == "head"})

        moments(
            program,
            batches,
            pool,
            receive,
            wanted=lambda m: m.role == "head" and values_key(m) in wanted,
            scratch=scratch,
        )
    return found


def _write(
    bundle: Bundle, lowered: Lowered, graphs: Graphs, folder: Path, progress: Progress
) -> Manifest:
    """Write the graphs, and copy what is not of them."""
    files, parameters = save_graphs(graphs, folder, progress)
    old = bundle.manifest
    if old.depth is not None:
        logger.warning("the depth table was left out: run edgedec calibrate-depth again.")
    replaced = {WEIGHTS, REPORT, *(component.file for component in old.components.values())}
    for name in old.files.keys() - replaced:
        if name.startswith("calibration."):
            continue  # it has served
        files[name] = write_file(folder / name, bundle.path(name).read_bytes())
    return replace(
        old,
        producer=f"edgedec {version('edgedec')}",
        components={
            name: replace(
                component,
                file=f"{name}.onnx",
                device=DEVICE,
                precision=lowered.scheme if lowered.matrices[name] else component.precision,
            )
            for name, component in old.components.items()
        },
        codebooks=lowered.block(None),
        depth=None,  # its times were those of other weights
        parameters=parameters,
        verified=None,
        files=dict(sorted(files.items())),
    )


def _verified(
    coded: Bundle, program: Program, lowered: Lowered, pool: Pool, progress: Progress
) -> Manifest:
    """Compare the graphs with products in float32, closely, and then as they are.

    Function bodies compute in float32 anyway, so without the library there is one comparison.
    Variants of stages are compared with their stages.
    """
    progress("verifying", 0.0)
    manifest = coded.manifest
    exact = once(coded_logits(program, lowered.values, ROUNDED["fp32"], pool))
    if lowered.compute == "fp32" or codebook_device(DEVICE).fallback() is not None:
        manifest = replace(manifest, verified=verify(coded, exact, TOLERANCE["fp32"], CHECKED))
    else:
        with in_fp32(coded) as same:
            verified = verify(same, exact, TOLERANCE["fp32"], CHECKED)
        rounded = coded_logits(program, lowered.values, ROUNDED[lowered.compute], pool)
        rounding = verify_rounding(coded, rounded, exact, CHECKED)
        manifest = replace(manifest, verified=verified, codebooks=lowered.block(rounding))
    verify_variants(coded)
    progress("verifying", 1.0)
    return manifest


def compute_of(options: QuantizeOptions) -> Compute:
    """How products with codes are computed.

    Raises:
        InputError: there is no such way.
    """
    if options.compute not in (None, *COMPUTES):
        raise InputError(f"--compute {options.compute!r}: choose one of {', '.join(COMPUTES)}.")
    return options.compute or COMPUTES[0]
