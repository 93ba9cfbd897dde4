"""What graphs of fixed shapes for NPUs compute, on Qualcomm's simulator: agreement, errors, sizes.

    python benchmarks/npu.py run g2p --dictionary cmudict.txt.gz
    python benchmarks/npu.py run lm --checkpoint lm-layerskip --text heldout.txt.gz
    python benchmarks/npu.py run t5-small bart-base
    python benchmarks/npu.py contexts g2p --cell nbits8
    python benchmarks/npu.py table

``run`` exports every model in every precision, each in a process of its own, and compares it with
floating point: on the CPU, and on the simulator, where nothing falls back. ``contexts`` compiles
the exported graphs for every chip, loads them again and compares the outputs bit for bit. Results
are lines of JSON; those that are there already are not measured again. ``table`` prints them, and
what must hold. Nothing here says how fast a phone is: the simulator checks function only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from npus.cells import CONTEXT_SOCS, SUBJECTS, export_options
from npus.subjects import EDGEDEC, Data, Ready, prepare
from npus.tables import print_tables

from edgedec.errors import EdgedecError

EXISTING = click.Path(exists=True, path_type=Path)
PROGRAM = Path(__file__).parent / "programs" / "npu_cell.py"
RESULTS = click.option(
    "--json", "results", type=click.Path(path_type=Path), default=Path("build/npu/results.jsonl")
)
WORK = click.option("--work", type=click.Path(path_type=Path), default=Path("build/npu"))
MODELS = click.argument("models", nargs=-1, required=True, type=click.Choice([*SUBJECTS]))
CELLS = click.option(
    "--cell", "cells", multiple=True, help="Only this, such as nbits8 or nbits4,budget=5.7."
)


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measure graphs for NPUs."""


@main.command()
@MODELS
@CELLS
@click.option("--dictionary", type=EXISTING, help="CMUdict, for g2p.")
@click.option("--checkpoint", type=EXISTING, help="A decoder-only model, for lm.")
@click.option("--text", type=EXISTING, help="Gzipped text for it.")
@click.option("--inputs", type=int, help="Of each model, if not as many as usual.")
@click.option("--probed", default=100, help="Inputs whose every token is compared.")
@WORK
@RESULTS
def run(
    models: tuple[str, ...],
    cells: tuple[str, ...],
    inputs: int | None,
    probed: int,
    work: Path,
    results: Path,
    **data: Path | None,
) -> None:
    """Export and compare."""
    for name in models:
        subject = SUBJECTS[name]
        wanted = [c for c in cells or subject.cells if not known(results, "run", name, c)]
        if not wanted:
            continue
        ready = prepare(subject, Data(**data), work / name, inputs or subject.inputs)
        for cell in wanted:
            options = [*subject.lengths, *export_options(cell)]
            bundle = export(ready, work / name / cell, options)
            found = measure(ready, bundle, cell, subject.new, probed)
            size = sum(file.stat().st_size for file in bundle.iterdir())
            keep(results, {"kind": "run", "model": name, "cell": cell, "bytes": size, **found})


def export(ready: Ready, out: Path, options: list[str]) -> Path:
    """A bundle for the NPU, whatever it agrees with: that is what is measured."""
    command = [EDGEDEC, "export", str(ready.checkpoint), "-o", str(out), "--force", "--no-verify"]
    command += ["--device", "qnn", *ready.calibration, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def measure(ready: Ready, bundle: Path, cell: str, new: int, probed: int) -> dict[str, Any]:
    """Agreement on the CPU and on the simulator, and word errors of the simulator."""
    task = {
        "float": str(ready.float),
        "bundle": str(bundle),
        "sources": ready.sources,
        "new": new,
        "probed": probed,
        "devices": {"cpu": "cpu", "device": "qnn"},
        "free": ["device"],
        "unrolled": "unroll" in cell,
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps(task)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    texts = found.pop("texts")
    static = json.loads((bundle / "edgedec.json").read_text())["static"]
    found |= {"inputs": len(ready.sources), "eight": len(static["eight"])}
    if ready.rate is not None:
        before, after = ready.rate(texts["float"]), ready.rate(texts["device"])
        found |= {"wer": after, "wer_float": before, "wer_change": after - before}
    return found


@main.command()
@MODELS
@CELLS
@click.option("--soc", "socs", multiple=True, default=CONTEXT_SOCS)
@WORK
@RESULTS
def contexts(
    models: tuple[str, ...],
    cells: tuple[str, ...],
    socs: tuple[str, ...],
    work: Path,
    results: Path,
) -> None:
    """Compile what ``run`` exported for chips, load it again, compare bit for bit."""
    from edgedec.devices.qnn_context import compile_context

    for name in models:
        for cell in cells or ("nbits8",):
            for soc in socs:
                if known(results, "context", name, cell, soc):
                    continue
                sizes, failures = {}, []
                out = work / name / f"{cell}-{soc}"
                out.mkdir(exist_ok=True)
                for graph in sorted((work / name / cell).glob("*.onnx")):
                    try:  # it compares what it wrote with the graph itself
                        written = compile_context(graph, out / graph.name, soc)
                        sizes[graph.stem] = sum(path.stat().st_size for path in written)
                    except EdgedecError as error:  # noqa: PERF203
                        failures.append(f"{graph.stem}: {error}")
                found = {"bytes": sizes, "failures": failures}
                keep(
                    results,
                    {"kind": "context", "model": name, "cell": cell, "soc": soc, **found},
                )


@main.command()
@RESULTS
def table(results: Path) -> None:
    """Print what was found."""
    print_tables(read(results))


def read(results: Path) -> list[dict[str, Any]]:
    """All results so far."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def known(results: Path, *key: str) -> bool:
    """Whether there is a result of that kind, model, cell and chip."""
    names = ("kind", "model", "cell", "soc")
    return any(
        all(found.get(name) == value for name, value in zip(names, key, strict=False))
        for found in read(results)
    )


def keep(results: Path, found: dict[str, Any]) -> None:
    """Add a result."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(found) + "\n")
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}, flush=True)


if __name__ == "__main__":
    main()
