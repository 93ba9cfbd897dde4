"""Time edgedec beside its peers: same weights' shape, same machine, taking turns.

    python benchmarks/peers.py setup            # each peer into an environment of its own
    python benchmarks/peers.py run              # a table per case; --json FILE for the samples

Every program runs in a process of its own, which is stopped while others are measured. Rounds are
interleaved (one measurement of each program per round) and medians reported, because machines are
shared and noisy: compare the ratios.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import click
from comparison.machine import machine
from comparison.programs import PROGRAMS, Program
from comparison.report import print_case
from comparison.turns import Worker, single_threaded_libraries
from comparison.workplace import BENCHMARKS, Workplace

SHAPES = ("t5-small", "t5-base")


@dataclass(frozen=True)
class Case:
    """One table of the comparison."""

    shape: str
    threads: int
    batch: int
    source: int
    new_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.shape}, {self.source} source + {self.new_tokens} new tokens, "
            f"batch {self.batch}, {self.threads} thread(s)"
        )


@dataclass(frozen=True)
class Effort:
    """How often a case is measured: ``rounds`` of every program, ``loads`` starts of each."""

    rounds: int
    loads: int


@click.group()
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/peers"),
    show_default=True,
    help="Where environments, checkpoints and converted models go.",
)
@click.pass_context
def main(context: click.Context, work: Path) -> None:
    """Time edgedec beside its peers."""
    context.obj = Workplace(work.absolute())


@main.command()
@click.pass_obj
def setup(workplace: Workplace) -> None:
    """Install every peer into an environment of its own; llama.cpp is compiled."""
    for home in {p.home.name: p.home for p in PROGRAMS.values() if p.home is not None}.values():
        click.echo(f"installing {home.name}", err=True)
        failure = workplace.install(home)
        if failure is not None:
            click.echo(f"{home.name} cannot be installed and is left out: {failure}", err=True)


@main.command()
@click.option("--shape", "shapes", multiple=True, default=("t5-small",), show_default=True)
@click.option("--threads", "-t", multiple=True, type=int, default=(1,), show_default=True)
@click.option("--batch", "-b", multiple=True, type=int, default=(1,), show_default=True)
@click.option("--source", "-s", multiple=True, type=int, default=(64,), show_default=True)
@click.option("--new-tokens", "-n", default=64, show_default=True)
@click.option("--rounds", "-r", default=9, show_default=True)
@click.option("--loads", default=3, show_default=True, help="Starts of each program.")
@click.option("--only", multiple=True, help="Programs whose name contains this; repeatable.")
@click.option("--without", multiple=True, help="No programs whose name contains this; repeatable.")
@click.option("--reference", default="edgedec cb4", show_default=True, help="Ratios against it.")
@click.option("--keep", is_flag=True, help="Do not export existing bundles of ours again.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write samples.")
@click.pass_obj
def run(
    workplace: Workplace,
    shapes: tuple[str, ...],
    threads: tuple[int, ...],
    batch: tuple[int, ...],
    source: tuple[int, ...],
    new_tokens: int,
    rounds: int,
    loads: int,
    only: tuple[str, ...],
    without: tuple[str, ...],
    reference: str,
    keep: bool,
    json_file: Path | None,
) -> None:
    """Run the comparison and print a table per case."""
    wanted = {
        name: program
        for name, program in PROGRAMS.items()
        if any(part in name for part in only or ("",)) and not any(part in name for part in without)
    }
    report: dict[str, Any] = {"machine": machine(), "reference": reference, "cases": []}
    for shape in shapes:
        checkpoint = workplace.checkpoint(shape)
        programs = _prepared(workplace, wanted, checkpoint, keep=keep)
        for t, b, s in product(threads, batch, source):
            case = Case(shape, t, b, s, new_tokens)
            found = _measure(workplace, programs, checkpoint, case, Effort(rounds, loads))
            report["cases"].append({**asdict(case), "programs": found})
            print_case(f"{case}, medians of {rounds}", found, reference)
            if json_file is not None:  # after every case, because all of them take hours
                json_file.write_text(json.dumps(report, indent=1))


def _prepared(
    workplace: Workplace, programs: dict[str, Program], checkpoint: Path, *, keep: bool
) -> dict[str, Program]:
    """Convert for every program; one that cannot take part is left out, with a word."""
    ready = {}
    for name, program in programs.items():
        again = program.home is None and not keep  # our own code changes between runs
        failure = workplace.prepare(program, checkpoint, again=again)
        if failure is None:
            ready[name] = program
        else:
            click.echo(f"{name} is left out: {failure}", err=True)
    return ready


def _measure(
    workplace: Workplace,
    programs: dict[str, Program],
    checkpoint: Path,
    case: Case,
    effort: Effort,
) -> dict[str, Any]:
    random = Random(0)
    sources = [[random.randrange(10, 30000) for _ in range(case.source)] for _ in range(case.batch)]

    def start(name: str) -> Worker:
        program = programs[name]
        task = {
            "model": str(workplace.model(program, checkpoint)),
            "setting": program.setting,
            "threads": case.threads,
            "sources": sources,
            "new_tokens": case.new_tokens,
        }
        return Worker(
            name,
            [
                workplace.tool(program.home, "python"),
                str(BENCHMARKS / "programs" / program.script),
                json.dumps(task),
            ],
            {**single_threaded_libraries(case.threads), "HF_HUB_OFFLINE": "1"},
        )

    found: dict[str, Any] = {
        name: {"model_bytes": workplace.model_bytes(program, checkpoint), "load_s": []}
        for name, program in programs.items()
    }
    workers: dict[str, Worker] = {}
    try:
        for _ in range(effort.loads):
            for name in programs:
                if name in workers:
                    workers[name].close()
                workers[name] = start(name)
                found[name]["load_s"].append(workers[name].load_s)
        for name, worker in workers.items():
            found[name] |= {"version": worker.hello["version"], "samples": []}
        with click.progressbar(range(effort.rounds), label=str(case), file=sys.stderr) as bar:
            for _ in bar:
                for name, worker in workers.items():
                    found[name]["samples"].append(worker.ask())
    finally:
        for worker in workers.values():
            worker.close()
    return found


if __name__ == "__main__":
    main()
