"""Kernels and decoding on an NVIDIA GPU, beside what its memory gives and beside torch and Triton.

    python benchmarks/gpu.py check                                # the shipped PTX against NumPy
    python benchmarks/gpu.py products --shape 4096x4096 -m 1
    python benchmarks/gpu.py steps t5-small --rows 1
    python benchmarks/gpu.py table

``products`` launches the PTX that is shipped through the driver, with TensorRT's order of
arguments, and times it beside torch's float16 product (cuBLAS), its int4 one, a plain Triton
kernel, and the GPU's memory, copied and read. ``steps`` times greedy decoding of one checkpoint
with torch, with `torch.compile` and a static cache, and with bundles of it on each device of
edgedec that opens.

Each contestant is a process of its own, stopped while others have their turn; medians over rounds.
Weights are read from copies in turns, so that no cache holds them. What is wrong is not timed, and
then the exit code is 1; without a GPU it is 3. Results are lines of JSON; what is there already is
not measured again.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click
from comparison.lines import find, keep, read
from gpus.cells import COMPILED, DECODERS, MODELS, ROWS, SAME, SHAPES
from gpus.contestants import DEFAULT, NAMES
from gpus.decoding import Case, Files, files, first_tokens
from gpus.lanes import LAUNCHES, ROTATED
from gpus.rounds import time_products, time_steps
from gpus.tables import print_tables
from gpus.workers import contestants

from edgedec.errors import EdgedecError

RESULTS = click.option(
    "--json", "results", type=click.Path(path_type=Path), default=Path("build/gpu/results.jsonl")
)
ROUNDS = click.option("--rounds", "-r", default=7)


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measure on an NVIDIA GPU."""


@main.command()
@RESULTS
def check(results: Path) -> None:
    """Compare every kernel with NumPy, on shapes that fill no tile."""
    facts = gpu()
    from gpus.checking import check

    from edgedec.devices.gpu.arena import arena

    right = True
    for found in check(arena()):
        keep(results, {"kind": "check", **facts, **found})
        right &= found["right"]
    sys.exit(0 if right else 1)


@main.command()
@click.option("--shape", "shapes", multiple=True, default=SHAPES, help="KxN")
@click.option("--rows", "-m", multiple=True, type=int, default=ROWS)
@click.option("--contestant", "names", multiple=True, type=click.Choice(NAMES), default=DEFAULT)
@click.option("--budget", default=0.03, help="Seconds per measurement.")
@click.option("--rotate", default=ROTATED >> 20, help="MB of weights that take turns.")
@click.option("--device", type=click.Choice(("cuda", "cpu")), default="cuda", hidden=True)
@click.option("--launches", default=LAUNCHES, hidden=True)
@ROUNDS
@RESULTS
def products(
    shapes: tuple[str, ...],
    rows: tuple[int, ...],
    names: tuple[str, ...],
    budget: float,
    rotate: int,
    device: str,
    launches: int,
    rounds: int,
    results: Path,
) -> None:
    """Time products of one to sixteen rows."""
    facts = gpu() if device == "cuda" else nobody()
    points = [
        {"shape": shape, "rows": m}
        for shape, m in product(shapes, rows)
        if not _measured(results, {**_machine(facts), "shape": shape, "rows": m}, names)
    ]
    task = {"device": device, "rotated": rotate << 20, "launches": launches}
    right = True
    if points:
        with contestants("gpu_product.py", {n: {**task, "name": n} for n in names}) as workers:
            for point in points:
                k, n = (int(part) for part in str(point["shape"]).split("x"))
                request = {"rows": point["rows"], "n": n, "k": k}
                found = time_products(workers, request, budget, rounds)
                right &= _right(found)
                keep(results, {"kind": "product", **facts, **point, "rounds": rounds, **found})
    sys.exit(0 if right else 1)


@main.command()
@click.argument("models", nargs=-1)
@click.option("--rows", "-b", multiple=True, type=int, default=(1, 8))
@click.option("--source", "-s", default=64, help="Tokens of each source.")
@click.option("--new-tokens", "-n", default=64)
@click.option("--contestant", "names", multiple=True, type=click.Choice([*DECODERS]))
@click.option("--reference", default=COMPILED, help="Ratios against it.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("build/gpu"))
@ROUNDS
@RESULTS
def steps(
    models: tuple[str, ...],
    rows: tuple[int, ...],
    source: int,
    new_tokens: int,
    names: tuple[str, ...],
    reference: str,
    work: Path,
    rounds: int,
    results: Path,
) -> None:
    """Time greedy decoding; MODELS are shapes of random checkpoints, or folders."""
    facts = gpu()
    right = True
    for model, batch in product(models or MODELS, rows):
        case = Case(model, batch, source, new_tokens)
        if find(results, {"kind": "steps", **_machine(facts), **case.facts}) is None:
            found = _decode(case, names or tuple(DECODERS), files(model, work), rounds)
            right &= _right(found)
            options = {"rounds": rounds, "reference": reference}
            keep(results, {"kind": "steps", **facts, **case.facts, **options, **found})
    sys.exit(0 if right else 1)


def _decode(case: Case, names: tuple[str, ...], own: Files, rounds: int) -> dict[str, Any]:
    """Open every contestant, compare its first tokens, time in turns."""
    chosen = {name: DECODERS[name] for name in names}
    common = {"threads": 1, "sources": own.sources(case), "new_tokens": case.new_tokens}
    tasks = {}
    for name, decoder in chosen.items():
        model = own.bundle(decoder.weights) if decoder.ours else own.checkpoint
        tasks[name] = {**common, "model": str(model.absolute()), "setting": decoder.setting}
    wanted = {name: first_tokens(own, decoder.weights, case) for name, decoder in chosen.items()}
    with contestants("gpu_decode.py", tasks) as workers:
        return time_steps(workers, wanted, SAME, rounds)


@main.command()
@RESULTS
def table(results: Path) -> None:
    """Print what was found."""
    print_tables(read(results))


def gpu() -> dict[str, Any]:
    """The GPU, its driver, the day.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
        MissingDeviceError: there is no driver or no GPU.
    """
    from edgedec.devices.gpu.driver import driver

    here = driver().gpu
    return {"gpu": here.name, "sm": here.sm, "driver": here.driver, "date": _today()}


def nobody() -> dict[str, Any]:
    """What stands for a GPU where contestants run on the CPU."""
    return {"gpu": "none", "sm": 0, "driver": "none", "date": _today()}


def _today() -> str:
    return dt.datetime.now(dt.timezone.utc).date().isoformat()


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"gpu": facts["gpu"], "driver": facts["driver"]}


def _measured(results: Path, key: Mapping[str, object], names: Sequence[str]) -> bool:
    """Whether there is a result with all of these contestants."""
    found = find(results, {"kind": "product", **key})
    return found is not None and {*names} <= {*found["us"], *found["failures"]}


def _right(found: Mapping[str, Any]) -> bool:
    """Whether nothing was computed wrong; what could not take part does not count."""
    return not any(why.startswith("wrong") for why in found["failures"].values())


if __name__ == "__main__":
    try:
        main()
    except EdgedecError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
