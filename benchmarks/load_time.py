"""How long `edgedec run` takes to its first token, and how much memory it holds.

    python benchmarks/load_time.py BUNDLE

Four processes take turns, with warm file caches:

- `python -c "import onnxruntime"`, which no program on ONNX Runtime can be below;
- the same opening the bundle and decoding one token, timed inside from the call of `load` on;
- `edgedec run` of one token, as a whole;
- `edgedec run` of 64 tokens, for the most memory.

Exits with 1 if load to first token takes longer than 0.25 s, or if `edgedec run` holds more than
1.5 times the bundle's size and the bare process together.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

SECONDS, TIMES = 0.25, 1.5
FIRST_TOKEN = """
import sys, time
import onnxruntime
import edgedec
begin = time.perf_counter()
generator = edgedec.load(sys.argv[1], threads=int(sys.argv[2]))
for _ in generator.stream(list(range(5, 69)), max_new_tokens=1, min_new_tokens=1, num_beams=1):
    print(time.perf_counter() - begin)
"""


@dataclass(frozen=True)
class Ran:
    """Seconds from start to end, the most memory in MB, and what the process printed."""

    seconds: float
    peak_mb: float
    output: str


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--threads", "-t", default=1, show_default=True)
@click.option("--rounds", "-r", default=7, show_default=True)
def main(bundle: Path, threads: int, rounds: int) -> None:
    """Print seconds and memory, and hold them against the targets."""
    edgedec = [str(Path(sys.executable).with_name("edgedec")), "run", str(bundle), "--ids"]
    ids = ",".join(str(i) for i in range(5, 69))
    commands = {
        "import onnxruntime": [sys.executable, "-c", "import onnxruntime"],
        "load to first token": [sys.executable, "-c", FIRST_TOKEN, str(bundle), str(threads)],
        "edgedec run, 1 token": [*edgedec, *_tokens(1, threads), ids],
        "edgedec run, 64 tokens": [*edgedec, *_tokens(64, threads), ids],
    }
    for command in commands.values():
        run(command)  # warms the file cache
    samples: dict[str, list[Ran]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            samples[name].append(run(command))
    table = Table(title=f"{bundle}, {threads} thread(s), medians of {rounds}")
    table.add_column("process")
    table.add_column("s", justify="right")
    table.add_column("peak MB", justify="right")
    peak = {name: statistics.median(r.peak_mb for r in runs) for name, runs in samples.items()}
    for name, runs in samples.items():
        table.add_row(
            name, f"{statistics.median(r.seconds for r in runs):.3f}", f"{peak[name]:.1f}"
        )
    console = Console(width=100)
    console.print(table)
    load = statistics.median(float(r.output) for r in samples["load to first token"])
    size = sum(path.stat().st_size for path in bundle.rglob("*")) / 1e6
    least = size + peak["import onnxruntime"]
    times = peak["edgedec run, 64 tokens"] / least
    console.print(f"load to first token, inside: {load:.3f} s (at most {SECONDS})")
    console.print(
        f"peak of edgedec run: {times:.2f} x ({size:.1f} MB bundle + "
        f"{peak['import onnxruntime']:.1f} MB bare process) (at most {TIMES})"
    )
    sys.exit(0 if load <= SECONDS and times <= TIMES else 1)


def run(command: list[str]) -> Ran:
    """Run a process to its end."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise click.ClickException(f"{' '.join(command[:3])} ... ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Ran(seconds, usage.ru_maxrss * unit / 1e6, output)


def _tokens(count: int, threads: int) -> list[str]:
    """Options for exactly that many tokens."""
    number = str(count)
    return ["--max-new-tokens", number, "--min-new-tokens", number, "--threads", str(threads)]


if __name__ == "__main__":
    main()
