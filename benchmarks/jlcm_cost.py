"""What learning codes takes, and what grouping rows is worth where weights have heavy tails.

    python benchmarks/jlcm_cost.py time --shape t5-base
    python benchmarks/jlcm_cost.py time --shape llama-3.2-1b --layers 2 --embedding-bits 8
    python benchmarks/jlcm_cost.py grouping

``time`` quantizes a random checkpoint of a known shape by `edgedec quantize`, in a process of its
own for the most memory, and splits the time by the shapes of matrices: it grows as N K^2. What
random weights lose says nothing, so it is not shown. ``grouping`` needs no model.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import click
import numpy as np
from codes.random_checkpoint import SHAPES, write_checkpoint
from codes.tails import WEIGHTS, grouped
from comparison.machine import machine
from load_time import run
from rich.console import Console
from rich.table import Table

console = Console(width=110)


@dataclass(frozen=True)
class Kind:
    """The matrices ``[N, K]`` of one shape; seconds are those of one of them."""

    N: int
    K: int
    count: int
    seconds: float

    @property
    def per_work(self) -> float:
        """Seconds per 10^9 N K^2."""
        return self.seconds / (self.N * self.K**2 / 1e9)


@click.group()
def main() -> None:
    """Measure what learning codes takes."""


@main.command("time", context_settings={"show_default": True})
@click.option("--shape", type=click.Choice([*SHAPES]), default="t5-base")
@click.option("--layers", type=int, help="Of each stack, if not all: the rest takes as long.")
@click.option("--bits", type=click.Choice(["2", "3", "4"]), default="4")
@click.option("--embedding-bits", type=click.Choice(["4", "8"]), help="8: it is only rounded.")
@click.option("--method", default="jlcm")
@click.option("--tokens", default=8192)
@click.option("--threads", type=int, default=os.cpu_count())
@click.option("--scratch", type=click.Path(path_type=Path), help="Where checkpoints are written.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
def time_(
    shape: str,
    layers: int | None,
    bits: str,
    embedding_bits: str | None,
    method: str,
    tokens: int,
    threads: int,
    scratch: Path | None,
    as_json: bool,
) -> None:
    """Time and memory of quantizing a checkpoint of a known shape."""
    before = machine()
    with tempfile.TemporaryDirectory(prefix="edgedec-cost-", dir=scratch) as name:
        folder = Path(name)
        text = write_checkpoint(folder / "checkpoint", shape, layers, tokens)
        command = [str(Path(sys.executable).with_name("edgedec")), "quantize"]
        command += [str(folder / "checkpoint"), "-o", str(folder / "bundle"), "--no-verify"]
        command += ["--method", method, "--bits", bits, "--calib", str(text), "--json"]
        command += ["--tokens", str(tokens), "--threads", str(threads)]
        command += [] if embedding_bits is None else ["--embedding-bits", embedding_bits]
        ran = run(command)
        megabytes = sum(path.stat().st_size for path in (folder / "checkpoint").iterdir()) / 1e6
    found = defaultdict(list)
    for matrix in json.loads(ran.output)["report"]["matrices"]:
        if matrix["method"] == method:  # ends with 8 bits are only rounded
            found[matrix["rows"], matrix["columns"]].append(matrix["seconds"])
    kinds = [Kind(*size, len(seconds), fmean(seconds)) for size, seconds in sorted(found.items())]
    if as_json:
        result = {
            "machine": before,
            "shape": shape,
            "layers": layers,
            "bits": int(bits),
            "method": method,
            "tokens": tokens,
            "threads": threads,
            "seconds": ran.seconds,
            "peak_mb": ran.peak_mb,
            "checkpoint_mb": megabytes,
            "kinds": [asdict(kind) for kind in kinds],
        }
        click.echo(json.dumps(result, indent=1))
        return
    table = Table(title=f"{shape}, {method}, {bits} bits, {threads} threads", title_justify="left")
    for column in ("N", "K", "matrices", "s each", "s", "s per 10^9 N K^2"):
        table.add_column(column, justify="right")
    for k in kinds:
        each, total = f"{k.seconds:.2f}", f"{k.count * k.seconds:.1f}"
        table.add_row(str(k.N), str(k.K), str(k.count), each, total, f"{k.per_work:.2f}")
    console.print(table)
    learned = sum(k.count * k.seconds for k in kinds)
    console.print(
        f"{learned:.1f} s for codes of {ran.seconds:.1f} s in all; peak {ran.peak_mb:.0f} MB; "
        f"the checkpoint has {megabytes:.0f} MB"
    )


@main.command("grouping", context_settings={"show_default": True})
@click.option("--rows", default=512)
@click.option("--columns", default=512)
@click.option("--bits", type=click.Choice(["2", "3", "4"]), multiple=True, default=["2", "3", "4"])
@click.option("--groups", type=int, multiple=True, default=[4, 16])
@click.option("--seeds", default=3, help="Matrices of each kind; means are shown.")
@click.option("--threads", type=int, default=os.cpu_count())
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
def grouping(
    rows: int,
    columns: int,
    bits: tuple[str, ...],
    groups: tuple[int, ...],
    seeds: int,
    threads: int,
    as_json: bool,
) -> None:
    """Errors of outputs with rows grouped as they come, and by their distributions."""
    found = [
        outcome
        for weights in WEIGHTS
        for width in map(int, bits)
        for count in groups
        for outcome in grouped(weights, rows, columns, width, count, seeds, threads)
    ]
    if as_json:
        click.echo(json.dumps([asdict(outcome) for outcome in found], indent=1))
        return
    table = Table(title=f"{rows} x {columns}, mean of {seeds}", title_justify="left")
    for column in (
        "weights",
        "bits",
        "groups",
        "grouping",
        "bits/weight",
        "error",
        "of contiguous",
    ):
        table.add_column(column, no_wrap=True)
    contiguous = np.nan
    for o in found:
        contiguous = o.error if o.grouping == "contiguous" else contiguous
        table.add_row(
            o.weights,
            str(o.bits),
            str(o.groups),
            o.grouping,
            f"{o.bits_per_weight:.3f}",
            f"{o.error:.4f}",
            f"{o.error / contiguous:.3f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
