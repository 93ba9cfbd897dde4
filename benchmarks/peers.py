"""Time edgedec beside its peers: same weights' shape, same machine, taking turns.

    python benchmarks/peers.py setup            # each peer into an environment of its own
    python benchmarks/peers.py run              # a table, and JSON with --json FILE

Every program runs in a process of its own. Rounds are interleaved (one measurement of each program
per round) and medians reported, because machines are shared and noisy: compare the ratios.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Program:
    """One program of the comparison.

    Attributes:
        script: file in ``programs/``.
        packages: what its environment needs; empty for the environment this script runs in.
        prepare: command that converts a checkpoint, with ``{checkpoint}`` and ``{model}``.
        suffix: what the converted model's name adds to the checkpoint's.
    """

    script: str
    packages: tuple[str, ...]
    prepare: tuple[str, ...]
    suffix: str


PROGRAMS = {
    "edgedec fp32": Program(
        "edgedec_fp32.py",
        (),
        ("edgedec", "export", "{checkpoint}", "-o", "{model}", "--force"),
        ".edgedec",
    ),
    "CTranslate2 float32": Program(
        "ctranslate2_fp32.py",
        (TORCH, "transformers<5", "ctranslate2", "protobuf", "sentencepiece"),
        (
            "ct2-transformers-converter",
            *("--model", "{checkpoint}", "--output_dir", "{model}", "--force"),
        ),
        ".ctranslate2",
    ),
    "optimum-onnx fp32": Program(
        "optimum_fp32.py",
        (TORCH, "transformers<4.58", "optimum-onnx", "onnxruntime"),
        (
            *("optimum-cli", "export", "onnx", "--model", "{checkpoint}"),
            *("--task", "text2text-generation-with-past", "{model}"),
        ),
        ".optimum",
    ),
    # After edgedec's own line: it takes the size from the bundle.
    "reading the weights": Program("weight_stream.py", (), (), ".edgedec"),
}


@dataclass(frozen=True)
class Case:
    """One line of the comparison."""

    shape: str
    threads: int
    batch: int
    source: int
    new_tokens: int


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
    context.obj = work.absolute()


@main.command()
@click.pass_obj
def setup(work: Path) -> None:
    """Install every peer into an environment of its own."""
    for name, program in PROGRAMS.items():
        if not program.packages:
            continue
        click.echo(f"installing {name}", err=True)
        environment = _environment(work, program)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        for package in program.packages:  # torch first, so that nothing else chooses its build
            pip = [_tool(environment, "python"), "-m", "pip", "install", "-q", package]
            subprocess.run(pip, check=True)


@main.command()
@click.option("--shape", "shapes", multiple=True, default=("t5-small",), show_default=True)
@click.option("--threads", "-t", multiple=True, type=int, default=(1,), show_default=True)
@click.option("--batch", "-b", multiple=True, type=int, default=(1,), show_default=True)
@click.option("--source", "-s", multiple=True, type=int, default=(64,), show_default=True)
@click.option("--new-tokens", "-n", default=64, show_default=True)
@click.option("--rounds", "-r", default=9, show_default=True)
@click.option("--json", "json_file", type=click.File("w"), help="Also write raw samples here.")
@click.pass_obj
def run(
    work: Path,
    shapes: tuple[str, ...],
    threads: tuple[int, ...],
    batch: tuple[int, ...],
    source: tuple[int, ...],
    new_tokens: int,
    rounds: int,
    json_file: Any,
) -> None:
    """Run the comparison and print a table per case."""
    cases = [
        Case(shape, t, b, s, new_tokens)
        for shape in shapes
        for t in threads
        for b in batch
        for s in source
    ]
    report: dict[str, Any] = {"machine": _machine(), "cases": []}
    for case in cases:
        checkpoint = _checkpoint(work, case.shape)
        programs = {n: p for n, p in PROGRAMS.items() if _prepared(work, n, p, checkpoint)}
        samples = _measure(work, programs, checkpoint, case, rounds)
        report["cases"].append({**asdict(case), "programs": samples})
        _print(case, samples)
    if json_file is not None:
        json.dump(report, json_file, indent=1)


def _environment(work: Path, program: Program) -> Path:
    return work / f"venv-{Path(program.script).stem}"


def _tool(environment: Path | None, name: str) -> str:
    """A program of an environment; of this one for None."""
    folder = Path(sys.executable).parent if environment is None else environment / "bin"
    return str(folder / name)


def _home(work: Path, program: Program) -> Path | None:
    return _environment(work, program) if program.packages else None


def _checkpoint(work: Path, shape: str) -> Path:
    """The random checkpoint of a shape, written once by an environment with transformers 4."""
    folder = work / shape
    if not (folder / "tokenizer.json").exists():
        environment = _environment(work, PROGRAMS["CTranslate2 float32"])
        python = _tool(environment, "python")
        subprocess.run([python, HERE / "checkpoints.py", shape, folder], check=True)
    return folder


def _prepared(work: Path, name: str, program: Program, checkpoint: Path) -> bool:
    """Convert the checkpoint once; a peer that is not installed is left out, with a word."""
    model = checkpoint.with_name(checkpoint.name + program.suffix)
    home = _home(work, program)
    if home is not None and not home.exists():
        click.echo(f"{name} is not installed (peers.py setup): left out", err=True)
        return False
    if program.prepare and (not model.exists() or home is None):
        command = [part.format(checkpoint=checkpoint, model=model) for part in program.prepare]
        subprocess.run(
            [_tool(home, command[0]), *command[1:]], check=True, stdout=subprocess.DEVNULL
        )
    return True


def _measure(
    work: Path, programs: dict[str, Program], checkpoint: Path, case: Case, rounds: int
) -> dict[str, Any]:
    random = Random(0)
    task = {
        "checkpoint": str(checkpoint),
        "threads": case.threads,
        "sources": [
            [random.randrange(10, 30000) for _ in range(case.source)] for _ in range(case.batch)
        ],
        "new_tokens": case.new_tokens,
    }
    threads = str(case.threads)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment |= {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    running: dict[str, subprocess.Popen[str]] = {}
    samples: dict[str, Any] = {}
    for name, program in programs.items():
        process = subprocess.Popen(
            [
                _tool(_home(work, program), "python"),
                str(HERE / "programs" / program.script),
                json.dumps(task),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        running[name] = process
        samples[name] = {**_read(name, process), "samples": []}
    progress = track(range(rounds), f"{case.shape}", console=Console(stderr=True))
    for _ in progress:
        for name, process in running.items():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            samples[name]["samples"].append(_read(name, process))
    for process in running.values():
        process.communicate()
    return samples


def _read(name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise click.ClickException(f"{name} stopped with exit code {process.wait()}.")
    value: dict[str, Any] = json.loads(line)
    return value


def _print(case: Case, samples: dict[str, Any]) -> None:
    ours = samples["edgedec fp32"]
    table = Table(
        title=f"{case.shape}, {case.source}+{case.new_tokens} tokens, batch {case.batch}, "
        f"{case.threads} thread(s), medians of {len(ours['samples'])} rounds"
    )
    for column in ("program", "first ms", "per token ms", "edgedec / it", "peak MB", "load s"):
        table.add_column(column, justify="left" if column == "program" else "right")
    ours_ms = _median(ours, "per_token_ms")
    for name, result in samples.items():
        per_token = _median(result, "per_token_ms")
        table.add_row(
            f"{name} {result['version']}",
            f"{_median(result, 'first_ms'):.1f}",
            f"{per_token:.2f}",
            f"{ours_ms / per_token:.2f}",
            f"{_median(result, 'peak_rss_mb'):.0f}",
            f"{result['load_s']:.2f}",
        )
    Console(width=120).print(table)


def _median(result: dict[str, Any], key: str) -> float:
    return statistics.median(sample[key] for sample in result["samples"])


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()}


if __name__ == "__main__":
    main()
