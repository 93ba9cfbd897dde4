"""What cutting the decoder costs: one stage for all layers against a stage for each.

    python benchmarks/stages.py
    python benchmarks/stages.py --format cb4 --threads 2 --rounds 15

A random checkpoint of T5-base's shape (or another one) is exported both ways and decoded at full
depth. Every bundle has a process of its own, which is stopped while others are measured; ratios are
taken within rounds. Exits with 1 if all stages cost more than 15 % over one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median

import click
from codes.random_checkpoint import SHAPES, write_checkpoint
from comparison.machine import machine
from comparison.turns import Worker, single_threaded_libraries
from rich.console import Console
from rich.table import Table

import edgedec

BAR = 1.15
CUTS = {"one": None, "all": "all"}
PROGRAM = Path(__file__).parent / "programs" / "edgedec_bundle.py"
console = Console(width=110)


@dataclass(frozen=True)
class Result:
    """One format: milliseconds per token, one decoder stage and one per layer.

    Attributes:
        format: of the weights.
        stages: how many there are in the second.
        one_ms: median over rounds.
        all_ms: median over rounds.
        ratio: median over rounds of the second by the first.
        stage_us: what a further stage costs, in microseconds: median difference per stage.
        rounds: milliseconds of every round, both.
    """

    format: str
    stages: int
    one_ms: float
    all_ms: float
    ratio: float
    stage_us: float
    rounds: list[tuple[float, float]]


@click.command(context_settings={"show_default": True})
@click.option("--shape", type=click.Choice([*SHAPES]), default="t5-base")
@click.option("--layers", type=int, help="Of each stack, if not all.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["fp32", "cb4", "cb3", "cb2", "int8"]),
    multiple=True,
    default=("fp32", "cb4"),
)
@click.option("--threads", "-t", default=1)
@click.option("--source", "-s", default=64, help="Tokens of the input.")
@click.option("--new-tokens", "-n", default=33)
@click.option("--rounds", "-r", default=11)
@click.option("--scratch", type=click.Path(path_type=Path), help="Where bundles are written.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
def main(
    shape: str,
    layers: int | None,
    formats: tuple[str, ...],
    threads: int,
    source: int,
    new_tokens: int,
    rounds: int,
    scratch: Path | None,
    as_json: bool,
) -> None:
    """Time one stage against a stage per layer."""
    before = machine()
    found = []
    with tempfile.TemporaryDirectory(prefix="edgedec-stages-", dir=scratch) as name:
        folder = Path(name)
        write_checkpoint(folder / "checkpoint", shape, layers, 0)
        for quant in formats:
            bundles = [export(folder, quant, cuts) for cuts in CUTS]
            found.append(measure(quant, bundles, threads, source, new_tokens, rounds))
    if as_json:
        report = {
            "machine": before,
            "shape": shape,
            "threads": threads,
            "source": source,
            "new_tokens": new_tokens,
            "results": [asdict(result) for result in found],
            "bar": BAR,
        }
        click.echo(json.dumps(report, indent=1))
    else:
        show(f"{shape}, {threads} thread(s), medians of {rounds} rounds", found)
    sys.exit(0 if all(result.ratio <= BAR for result in found) else 1)


def export(folder: Path, quant: str, cuts: str) -> Path:
    """A bundle of the checkpoint; codes are rounded, because their values take no time."""
    out = folder / f"{quant}-{cuts}"
    edgedec.export(
        folder / "checkpoint",
        out,
        stages=CUTS[cuts],
        quant=None if quant == "fp32" else quant,
        method=None if quant == "fp32" else "rtn",
        verify=False,
    )
    return out


def measure(
    quant: str, bundles: list[Path], threads: int, source: int, new_tokens: int, rounds: int
) -> Result:
    """Let the two take turns."""
    random = Random(0)
    inputs = [[random.randrange(10, 30000) for _ in range(source)]]
    workers = []
    try:
        for bundle in bundles:
            task = {
                "model": str(bundle),
                "setting": "",
                "threads": threads,
                "sources": inputs,
                "new_tokens": new_tokens,
            }
            command = [sys.executable, str(PROGRAM), json.dumps(task)]
            workers.append(Worker(bundle.name, command, single_threaded_libraries(threads)))
        samples = []
        for turn in range(rounds):
            order = workers if turn % 2 else workers[::-1]
            times = {worker.name: worker.ask()["per_token_ms"] for worker in order}
            samples.append((times[bundles[0].name], times[bundles[1].name]))
    finally:
        for worker in workers:
            worker.close()
    stages = len(json.loads((bundles[1] / "edgedec.json").read_text())["stages"])
    return Result(
        format=quant,
        stages=stages,
        one_ms=median(one for one, _ in samples),
        all_ms=median(every for _, every in samples),
        ratio=median(every / one for one, every in samples),
        stage_us=median(1e3 * (every - one) / (stages - 1) for one, every in samples),
        rounds=samples,
    )


def show(title: str, found: list[Result]) -> None:
    """Print a table."""
    table = Table(title=title, caption=f"bar: {BAR}", title_justify="left")
    for column in ("format", "stages", "one ms", "all ms", "ratio", "us per stage more"):
        table.add_column(column, justify="right")
    for result in found:
        table.add_row(
            result.format,
            str(result.stages),
            f"{result.one_ms:.3f}",
            f"{result.all_ms:.3f}",
            f"{result.ratio:.3f}",
            f"{result.stage_us:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
