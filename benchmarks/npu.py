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

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from comparison.lines import find, keep, read
from npus.cells import CONTEXT_SOCS, SUBJECTS, export_options, reads_text
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
    "--cell", "cells", multiple=True, help="Only this, such as nbits8 or nbits4,budget=5.3."
)


PIECE = 20
"""Inputs that one process measures."""


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
@click.option("--jobs", "-j", default=1, help="Processes side by side.")
@WORK
@RESULTS
def run(
    models: tuple[str, ...],
    cells: tuple[str, ...],
    inputs: int | None,
    jobs: int,
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
            bundle = work / name / cell
            if not bundle.exists():
                text = ready.calibration if reads_text(cell) else ()
                export(ready, bundle, [*text, *subject.lengths, *export_options(cell)])
            found = measure(ready, bundle, cell, subject.new, jobs)
            size = sum(file.stat().st_size for file in bundle.iterdir())
            keep(results, {"kind": "run", "model": name, "cell": cell, "bytes": size, **found})


def export(ready: Ready, out: Path, options: list[str]) -> None:
    """A bundle for the NPU, whatever it agrees with: that is what is measured."""
    command = [EDGEDEC, "export", str(ready.checkpoint), "-o", str(out), "--no-verify"]
    command += ["--device", "qnn", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure(ready: Ready, bundle: Path, cell: str, new: int, jobs: int) -> dict[str, Any]:
    """Agreement on the CPU and on the simulator, and word errors.

    The simulator takes up to a second for a step, so inputs are measured some at a time, and what
    is there already is not measured again.
    """
    pieces = [ready.sources[i : i + PIECE] for i in range(0, len(ready.sources), PIECE)]

    def one(sources: list[list[int]]) -> dict[str, Any]:
        task = {
            "float": str(ready.float),
            "bundle": str(bundle),
            "sources": sources,
            "new": new,
            "devices": {"cpu": "cpu", "device": "qnn"},
            "unrolled": "unroll" in cell,
        }
        text = json.dumps(task)
        name = f"{cell}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        kept = bundle.parent / "pieces" / name
        if not kept.exists():
            command = [sys.executable, str(PROGRAM), text]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(done.stdout.splitlines()[-1])
        found: dict[str, Any] = json.loads(kept.read_text())
        return found

    with ThreadPoolExecutor(jobs) as pool:
        found = join([*pool.map(one, pieces)])
    texts = found.pop("texts")
    static = json.loads((bundle / "edgedec.json").read_text())["static"]
    found |= {"inputs": len(ready.sources), "eight": len(static["eight"])}
    if ready.rate is not None:
        rates = {name: ready.rate(some) for name, some in texts.items()}
        found |= {
            "wer_float": rates["float"],
            "wer": rates["device"],
            "wer_change": rates["device"] - rates["float"],
            "wer_change_cpu": rates["cpu"] - rates["float"],
        }
    return found


def join(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all inputs; those of tokens are missing where steps are unrolled."""
    tokens, inputs = (sum(p["tokens"] for p in pieces), sum(len(p["texts"]) for p in pieces))
    spread = sum(p["spread"] for p in pieces)
    found: dict[str, Any] = {"tokens": tokens}
    texts = {"float": [text for p in pieces for text in p["texts"]]}
    chosen: dict[str, list[int]] = {}
    for name in pieces[0]["devices"]:
        own = [p["devices"][name] for p in pieces]
        chosen[name] = [token for piece in own for token in piece["chosen"]]
        texts[name] = [text for piece in own for text in piece["texts"]]
        found[f"{name}_same"] = sum(piece["same"] for piece in own) / inputs
        if chosen[name]:
            found[name] = sum(piece["equal"] for piece in own) / tokens
            found[f"{name}_error"] = (sum(piece["squares"] for piece in own) / spread) ** 0.5
    if chosen["device"]:
        pairs = zip(chosen["device"], chosen["cpu"], strict=True)
        found["device_cpu"] = sum(a == b for a, b in pairs) / tokens
    return {**found, "texts": texts}


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


def known(results: Path, *key: str) -> bool:
    """Whether there is a result of that kind, model, cell and chip."""
    names = ("kind", "model", "cell", "soc")
    return find(results, dict(zip(names, key, strict=False))) is not None


if __name__ == "__main__":
    main()
