"""What `edgedec profile` does with its options: a plan before, files and tables after."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedec.cli.terminal import lines
from edgedec.cli.terminal.logs import note
from edgedec.cli.terminal.progress import Bar
from edgedec.errors import EdgedecError, InputError

if TYPE_CHECKING:
    from edgedec.runtime.profiling.comparison import Comparison
    from edgedec.runtime.profiling.plan import Plan
    from edgedec.runtime.profiling.profiler import Outcome
    from edgedec.runtime.profiling.record import Configuration, Profile

PERCENT = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)\s*%?")
REPETITIONS = 10
SOURCE_TOKENS, NEW_TOKENS = "128", "64"
FAILED, INTERRUPTED = 1, 130
BASELINE = "hf"
DATA = frozenset(("csv", "json", "jsonl"))
"""Formats for programs, which show a profile and nothing else."""


def percent(text: str) -> float:
    """``5%`` as a fraction of one."""
    match = PERCENT.fullmatch(text.strip())
    if match is None:
        raise InputError(f"--fail-over {text!r} is not a percentage such as 5%.")
    return float(match[1]) / 100


def check_files(written: Sequence[str | None], *, read: Sequence[str | None]) -> None:
    """Refuse files that cannot be written, or that have two purposes."""
    from edgedec.runtime.text_file import check_writable

    others = [Path(name).resolve() for name in filter(None, read)]
    for name in filter(None, written):
        check_writable(name)
        path = Path(name).resolve()
        if path in others and (path.is_file() or not path.exists()):
            raise InputError(f"{name} is named twice: it would be lost.")
        others.append(path)


def plan(
    bundles: tuple[str, ...],
    *,
    source_tokens: str | None,
    new_tokens: str | None,
    batch: str,
    threads: str | None,
    device: str | None,
    depth: tuple[str, ...],
    file: str | None,
    repetitions: int | None,
    rounds: int,
    warmup: int,
    seed: int,
    in_process: bool,
    baseline: str | None,
    ops: bool,
    trace: bool,
) -> Plan:
    """The sweep of the command line.

    Raises:
        InputError: options that make no sense, or contradict each other.
    """
    from edgedec.devices.parts import split_devices
    from edgedec.runtime.profiling.plan import Plan
    from edgedec.runtime.profiling.record import Effort
    from edgedec.runtime.profiling.request import usable_lines
    from edgedec.runtime.profiling.sweep import Sweep, numbers, policies

    if not bundles:
        raise InputError("Name a bundle to profile: a folder of `edgedec export`, or g2p.")
    if file is not None and source_tokens is not None:
        raise InputError("Give either -f FILE or -s, not both: a text has its own lengths.")
    # Read and checked before anything is measured; blank lines say nothing.
    inputs = () if file is None else tuple(usable_lines(list(lines.read_lines(file)), note))
    batches = numbers(batch, "-b")
    limits = new_tokens if file is not None else new_tokens or NEW_TOKENS
    sweep = Sweep(
        bundles=tuple(folders := _folders(bundles)),
        devices=("",) if device is None else split_devices(device),
        threads=(None,) if threads is None else numbers(threads, "-t"),
        batches=batches,
        depths=policies(depth),
        source_tokens=(None,) if inputs else numbers(source_tokens or SOURCE_TOKENS, "-s"),
        new_tokens=(None,) if limits is None else numbers(limits, "-n"),
        text=None if file is None else Path(lines.shown(file)).name,
    )
    configurations = sweep.configurations()
    if device is None:
        own = {label: _own_device(folder) for label, folder in folders.items()}
        configurations = tuple(replace(one, device=own[one.bundle]) for one in configurations)
    if baseline is not None:
        folders, configurations = _with_baseline(baseline, folders, configurations)
    repetitions = repetitions or max(REPETITIONS, -(-len(inputs) // min(batches)))
    return Plan(
        bundles=folders,
        configurations=configurations,
        effort=Effort(
            # A round without a request would be a start for nothing.
            rounds=min(rounds, repetitions),
            repetitions=repetitions,
            warmup=warmup,
            fresh=not in_process,
            seed=seed,
            text_sha256=_sha256(inputs) if inputs else None,
        ),
        inputs=inputs,
        operators=ops,
        trace=trace,
    )


def _sha256(inputs: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in inputs).encode()).hexdigest()


def _folders(bundles: Sequence[str]) -> dict[str, str]:
    """Labels, as short as they can be, and folders; what is no bundle fails its rows only."""
    from edgedec.builtin import resolve_bundle

    labels = [Path(bundle).name or bundle for bundle in bundles]
    if len(set(labels)) < len(labels):
        labels = list(bundles)
    if len(set(labels)) < len(labels):
        raise InputError("A bundle is named twice; to see the noise, profile a copy beside it.")
    found = {}
    for label, bundle in zip(labels, bundles, strict=True):
        found[label] = bundle
        # Where there are others, the rows of what is no bundle say so.
        with suppress(EdgedecError) if len(bundles) > 1 else nullcontext():
            found[label] = str(resolve_bundle(bundle, note=note))
    return found


def _own_device(folder: str) -> str:
    """What a bundle was exported for; of what is no bundle, its rows say that."""
    from edgedec.devices.parts import default_devices
    from edgedec.runtime.bundle import open_bundle

    with suppress(EdgedecError):
        return default_devices(open_bundle(folder).manifest)
    return "cpu"


def _with_baseline(
    text: str, folders: dict[str, str], configurations: tuple[Configuration, ...]
) -> tuple[dict[str, str], tuple[Configuration, ...]]:
    """The same rows by transformers, each after the bundle's own."""
    name, _, checkpoint = text.partition("=")
    if name != BASELINE:
        raise InputError(f"--baseline {text!r}: give {BASELINE} or {BASELINE}=CHECKPOINT.")
    from edgedec.runtime.profiling.peers.transformers import resolve

    # Bundles of one checkpoint share its rows.
    labels: dict[str, str] = {}
    checkpoints: dict[str, str] = {}
    for label, folder in folders.items():
        where = resolve(Path(folder), checkpoint or None, note)
        known = {at: name for name, at in checkpoints.items()}
        labels[label] = known.get(where, f"{label} (transformers)")
        checkpoints[labels[label]] = where
    found: dict[Configuration, None] = {}
    for ours in configurations:
        theirs = replace(
            ours,
            bundle=labels[ours.bundle],
            device="cpu",
            depth="full",
            program="transformers",
        )
        found |= {ours: None, theirs: None}
    return {**folders, **checkpoints}, tuple(found)


def measure(plan: Plan, via: str | None, remote_python: str) -> Outcome:
    """Carry out a plan, here or on a device, with a progress bar."""
    from edgedec.runtime.profiling import profiler
    from edgedec.runtime.profiling.turns import count_turns

    if via is None:
        _note_simulator(plan.configurations)
    with Bar("preparing", count_turns(plan), unit="turns") as bar:
        if via is None:
            site = profiler.here(plan, note=note)
        else:
            from edgedec.runtime.profiling import remote

            def copied(done: int, total: int) -> None:
                bar.update(0, f"copying {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

            site = remote.site(plan, via, remote_python, note=note, copied=copied)
        return profiler.profile(plan, site, progress=lambda done: bar.update(done, "measuring"))


def _note_simulator(configurations: Sequence[Configuration]) -> None:
    """Say what times of a simulator are worth."""
    from edgedec.devices.parts import parse_devices
    from edgedec.devices.qnn_library import is_simulator, missing

    chosen = {d for one in configurations for d in parse_devices(one.device).values()}
    named = any(device.partition(":")[0] == "qnn" for device in chosen)
    if named and missing() is None and is_simulator():
        note(
            "qnn is Qualcomm's simulator on this machine: its times say nothing about a phone, "
            "not even in comparison."
        )


def saved(profile: Profile) -> Outcome:
    """A profile of earlier."""
    from edgedec.runtime.profiling.profiler import Outcome

    return Outcome(profile, {})


@dataclass(frozen=True)
class Files:
    """Names of files to write; None: not wanted."""

    save: str | None
    html: str | None
    trace: str | None

    def write(self, outcome: Outcome, comparison: Comparison | None) -> None:
        """Write them, each all or nothing; InputError where one cannot be."""
        from edgedec.runtime.profiling.record import dump_profile
        from edgedec.runtime.text_file import write_text

        profile = outcome.profile
        if self.save is not None:
            write_text(self.save, dump_profile(profile))
        if self.html is not None:
            from edgedec.runtime.report.html import render_html

            write_text(self.html, render_html(profile, comparison))
        if self.trace is not None:
            from edgedec.runtime.profiling.trace import write_trace
            from edgedec.runtime.report.rows import shown

            names = [row.name for row in shown(profile)]
            write_trace(self.trace, [(names[row], seen) for row, seen in outcome.traces.items()])


def show(
    outcome: Outcome, old: Profile | None, limit: float, undecided: bool, output: str, files: Files
) -> int:
    """Write the files, print the rest.

    Args:
        outcome: of a plan, or of earlier.
        old: to compare with.
        limit: growth that counts, as a fraction of one.
        undecided: whether a comparison that noise leaves undecided has failed, too.
        output: what to print.
        files: to write.

    Returns:
        The exit code: 1 where a row failed or became slower, or nothing could be compared, and
        130 after an interruption.

    Raises:
        InputError: all rows failed, or a file cannot be written.
        EdgedecError: what ended the measurement early.
    """
    from edgedec.runtime.profiling.comparison import compare
    from edgedec.runtime.report.change import verdict
    from edgedec.runtime.report.render import WIDTH, render

    profile = outcome.profile
    errors = [row.error for row in profile.rows if row.error is not None]
    if errors and not any(row.turns for row in profile.rows):
        # Nothing to show. What is wrong with the first is most likely wrong with all.
        raise InputError(errors[0])
    comparison = None if old is None else compare(old, profile, limit)
    # Files come first, as the reader of standard output may leave; their errors come last.
    error: EdgedecError | None = outcome.error
    try:
        files.write(outcome, comparison)
    except InputError as unwritten:
        error = unwritten
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    click.echo(render(profile, output, comparison, width=width), nl=False)
    if comparison is not None and output in DATA:
        note(verdict(comparison))
    if not profile.complete:
        note("Interrupted: this is what was measured until then.")
    if error is not None:
        raise error
    if not profile.complete:
        return INTERRUPTED
    return FAILED if errors or _failed(comparison, undecided) else 0


def _failed(comparison: Comparison | None, undecided: bool) -> bool:
    if comparison is None:
        return False
    # A check that compared nothing has not passed.
    return comparison.slower or not comparison.rows or (undecided and comparison.undecided)
