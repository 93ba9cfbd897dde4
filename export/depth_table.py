"""Depth policies compared on a text: what each keeps of full depth's quality, and its speed."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from edgedec.errors import InputError
from edgedec.export.bundle import Progress, new_folder, write_file
from edgedec.export.depth_grid import Candidate
from edgedec.export.evaluate import METRICS, Metric, read_task
from edgedec.quantize.text.text_files import read_pairs
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.comparison import FULL, Agreement, add_to, milliseconds
from edgedec.runtime.depth.options import make_policy
from edgedec.runtime.depth.statistics import Statistics
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import (
    MANIFEST,
    DepthPoint,
    DepthTable,
    dump_manifest,
    load_manifest,
)
from edgedec.runtime.text import Tokenizer

AGREEMENT = "agreement"
PROMPT = 64
"""Tokens of a decoder-only model's prompt where the text tells no target."""
NAME = 100
"""Characters of a text's or a processor's name that a manifest keeps."""


@dataclass(frozen=True)
class Inputs:
    """What is generated for.

    Attributes:
        text: name of the file.
        sources: token ids, special tokens included.
        targets: what it should say; empty where quality is agreement with full depth.
        metric: how the two are compared; None for agreement.
    """

    text: str
    sources: list[list[int]]
    targets: list[str] = field(default_factory=list)
    metric: Metric | None = None


@dataclass(frozen=True)
class Measured:
    """One policy's point, with what the bundle's table has no room for.

    Attributes:
        point: see `DepthPoint`.
        acceptance: fraction of drafts that held, None without drafts.
        exact_match: fraction of inputs with full depth's tokens.
        score: the metric's own value, None where quality is agreement.
        tokens: generated in one round.
        on_front: whether no other point is at least as good in quality and time, and better in one;
            full depth always counts.
    """

    point: DepthPoint
    acceptance: float | None
    exact_match: float
    score: float | None
    tokens: int
    on_front: bool = False


def metric_names() -> dict[str, Metric]:
    """The metrics by the names that options have."""
    return {metric.name.lower().replace(" ", "-"): metric for metric in METRICS}


def read_inputs(path: Path, bundle: Bundle, count: int, measure: str) -> Inputs:
    """Take inputs from all over a text file, those left out that are too long for the model.

    A decoder-only model gets the first `PROMPT` tokens of each, if no metric wants a target.

    Raises:
        InputError: no such file, nothing in it that the model can take, a metric that wants targets
            which the text does not have, or a bundle without a tokenizer.
        MissingDependencyError: a metric without its library.
    """
    if "tokenizer.json" not in bundle.manifest.files:
        raise InputError("the bundle has no tokenizer to read a text with: export it with one.")
    metric = None if measure == AGREEMENT else metric_names()[measure]
    pairs = read_pairs(path) if metric is None else read_task(path)
    if not pairs:
        raise InputError(
            f"{path} has no targets, which --metric {measure} needs: give lines of a source, a tab "
            "and a target, or measure agreement with full depth."
        )
    tokenizer = Tokenizer.open(bundle.path("tokenizer.json"))
    io = bundle.manifest.interface
    decodes = bundle.manifest.encoder is None
    longest = io.max_source if not decodes else io.max_target and io.max_target - 2
    step = max(1.0, len(pairs) / count)
    sources, targets = [], []
    for pair in (pairs[int(index * step)] for index in range(min(count, len(pairs)))):
        tokens = list(map(int, tokenizer.encode([pair.source])[0]))
        if decodes and metric is None:
            tokens = tokens[:PROMPT]
        if tokens and (longest is None or len(tokens) <= longest):
            sources.append(tokens)
            targets.append((pair.target or "").strip())
    if not sources:
        raise InputError(f"every input of {path} is too long for the model: give shorter ones.")
    return Inputs(path.name, sources, [] if metric is None else targets, metric)


def measure_depths(
    generator: Generator,
    candidates: Sequence[Candidate],
    inputs: Inputs,
    *,
    rounds: int,
    progress: Progress,
    left_out: Callable[[str, str], None],
    **options: Any,
) -> list[Measured]:
    """Generate for every input with every policy and at full depth, in turns.

    One input after another is given to all policies, another one first each time, so that what
    disturbs the machine disturbs all of them. Times are medians over rounds of a round's sums, and
    speed-ups medians of its ratios. Results are the same in every round: a seed is set.

    Args:
        generator: of the bundle.
        candidates: without full depth.
        inputs: one or more.
        rounds: how often everything is run.
        progress: told the fraction done.
        left_out: told of a policy that turns out not to work with how the checkpoint is decoded,
            such as beam search, and why.
        options: of `Generator.generate`.

    Returns:
        A point for each policy, full depth first.

    Raises:
        InputError: an input that the model cannot take.
    """
    full = Candidate(FULL, make_policy(FULL, generator.bundle.manifest))
    options = {"seed": 0, **options}
    trials = [_Trial(full, rounds)]
    _run(generator, trials[0].candidate, inputs.sources[0], 0, options)
    for candidate in candidates:
        try:
            _run(generator, candidate, inputs.sources[0], 0, options)
        except InputError as error:  # noqa: PERF203 - each may fail
            left_out(candidate.depth, str(error))
        else:
            trials.append(_Trial(candidate, rounds))
    for turn in range(rounds * len(inputs.sources)):
        progress("generating", turn / (rounds * len(inputs.sources)))
        done, index = divmod(turn, len(inputs.sources))
        begin = turn % len(trials)
        for trial in trials[begin:] + trials[:begin]:
            source = inputs.sources[index]
            tokens, text = _run(generator, trial.candidate, source, index, options)
            add_to(trial.rounds[done], generator.statistics)
            if done == 0:
                trial.tokens.append(tokens)
                trial.texts.append(text)
    progress("generating", 1.0)
    return front([_measured(trial, trials[0], inputs) for trial in trials])


@dataclass
class _Trial:
    """What one policy did: counts of every round, results of the first."""

    candidate: Candidate
    count: int
    rounds: list[Statistics] = field(init=False)
    tokens: list[list[int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rounds = [Statistics() for _ in range(self.count)]


def _run(
    generator: Generator, candidate: Candidate, source: list[int], row: int, options: dict[str, Any]
) -> tuple[list[int], str]:
    (result,) = generator.generate(
        [source], batch_size=1, first_row=row, depth=candidate.policy, **options
    )
    return result.tokens, (result.text or "").strip()


def _measured(trial: _Trial, full: _Trial, inputs: Inputs) -> Measured:
    counted = trial.rounds[0]
    equal = Agreement()
    for ours, theirs in zip(trial.tokens, full.tokens, strict=True):
        equal.add(ours, theirs)
    times = [milliseconds(one) for one in trial.rounds]
    reference = [milliseconds(one) for one in full.rounds]
    if None in times or None in reference or counted.mean_layers is None:
        raise InputError(
            f"{trial.candidate.depth} generated nothing after the first token of any input: "
            "calibrate on inputs with longer outputs, or raise --max-new-tokens."
        )
    ratios = [b / a for a, b in zip(times, reference, strict=True) if a and b]
    quality, score = equal.of_tokens or 0.0, None
    if inputs.metric is not None:
        score = inputs.metric.function(trial.texts, inputs.targets)
        best = inputs.metric.function(full.texts, inputs.targets)
        quality = relative(inputs.metric, score, best)
    point = DepthPoint(
        depth=trial.candidate.depth,
        quality=quality,
        layers=counted.mean_layers,
        milliseconds=median(time for time in times if time),
        speedup=median(ratios),
    )
    return Measured(point, counted.acceptance, equal.of_inputs or 0.0, score, counted.tokens)


def relative(metric: Metric, score: float, full: float) -> float:
    """A score in percent as a fraction of full depth's, never below 0.

    Of a metric that counts errors, what is right is compared: 100 minus the errors.

    Raises:
        InputError: there is nothing right at full depth to be a fraction of.
    """
    if metric.lower_is_better:
        score, full = 100 - score, 100 - full
    if full <= 0:
        raise InputError(
            f"at full depth {metric.name} says that nothing is right: calibrate on a text of what "
            "the model does, or measure agreement with full depth."
        )
    return max(0.0, score / full)


def front(points: Sequence[Measured]) -> list[Measured]:
    """Mark the points that nothing beats: fastest first, and each better than all faster ones.

    Args:
        points: full depth first; it is marked in any case, as what the others are measured by.
    """

    def order(index: int) -> tuple[float, float, int]:
        point = points[index].point
        return point.milliseconds, -point.quality, index

    kept = {0}
    best = float("-inf")
    for index in sorted(range(len(points)), key=order):
        if points[index].point.quality > best:
            best = points[index].point.quality
            kept.add(index)
    return [replace(point, on_front=index in kept) for index, point in enumerate(points)]


def make_table(
    points: Sequence[Measured], inputs: Inputs, measure: str, threads: int
) -> DepthTable:
    """What a bundle keeps: the front, best last."""
    kept = [measured.point for measured in points if measured.on_front]
    return DepthTable(
        text=_printable(inputs.text),
        inputs=len(inputs.sources),
        measure=measure,
        machine=_printable(_processor()),
        threads=threads,
        points=tuple(sorted(kept, key=lambda point: (point.quality, -point.milliseconds))),
    )


def write_table(folder: Path, table: DepthTable) -> None:
    """Put a table into a bundle's manifest, in place of an older one.

    The new manifest is written beside the old one and then takes its place: readers see one or the
    other, whatever happens.

    Raises:
        BundleError: the bundle is not in order.
        InputError: its folder cannot be written to.
    """
    manifest = replace(open_bundle(folder).manifest, depth=table)
    text = dump_manifest(manifest)
    load_manifest(text)  # no bundle that could not be opened again
    try:
        handle, name = tempfile.mkstemp(prefix=f".{MANIFEST}.", dir=folder)
        os.close(handle)
        try:
            shutil.copymode(folder / MANIFEST, name)
            write_file(Path(name), text.encode("utf-8"))
            Path(name).replace(folder / MANIFEST)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{folder / MANIFEST} cannot be replaced: {error.strerror}.") from error


def copy_bundle(folder: Path, out: Path, table: DepthTable) -> None:
    """Copy a bundle's files, and write a table into the copy.

    Raises:
        InputError: ``out`` exists, or cannot be written.
    """
    with new_folder(out, force=False) as partial:
        for name in (*open_bundle(folder).manifest.files, MANIFEST):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, partial / name)
        write_table(partial, table)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:NAME]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"
