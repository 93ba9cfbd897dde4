"""Does the profiler agree with a clock outside of the process?

    python benchmarks/outside_clock.py BUNDLE

Every round times two processes, by hyperfine where that is installed: `edgedec run --profile` on a
file of inputs, and on an empty one, which starts, opens the bundle and generates nothing. What the
first takes longer must be what it says that its requests took. Prints both and their ratio; exits
with 1 if the median ratio is further than 5 % from 1.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

LIMIT = 0.05
ENOUGH_MS = 4000
SENTENCE = "A sentence of a few words."


@click.command()
@click.argument("bundle")
@click.option("--lines", type=int, help="Inputs, one request each.  [default: as many as take 4 s]")
@click.option("--tokens", "-n", default=64, show_default=True, help="New tokens at most.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", "-t", default=1, show_default=True)
def main(bundle: str, lines: int | None, tokens: int, rounds: int, threads: int) -> None:
    """Compare whole processes with what they say of their requests."""
    clock = shutil.which("hyperfine")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs, nothing = folder / "inputs.txt", folder / "nothing.txt"
        inputs.write_text(f"{SENTENCE}\n")
        nothing.touch()
        command = [sys.executable, "-m", "edgedec", "run", bundle, "--profile", "--json"]
        command += ["--batch-size", "1", "--max-new-tokens", str(tokens), "--threads", str(threads)]
        if lines is None:
            # Starts differ by a tenth of a second: what is compared must take many times that.
            _seconds([*command, "-f", str(inputs)], folder, clock)
            lines = math.ceil(ENOUGH_MS / _profile(folder)[-1])
        inputs.write_text(f"{SENTENCE}\n" * lines)
        found = []
        for _ in range(rounds):
            start = _seconds([*command, "-f", str(nothing)], folder, clock)
            whole = _seconds([*command, "-f", str(inputs)], folder, clock)
            inside = sum(_profile(folder)) / 1e3
            found.append((start, whole, inside, (whole - start) / inside))
    start, whole, inside, ratio = (statistics.median(column) for column in zip(*found, strict=True))
    click.echo(f"{bundle}, {lines} requests, by {'hyperfine' if clock else 'our own clock'}:")
    click.echo(
        f"process {whole:.3f} s, start-up {start:.3f} s, difference {whole - start:.3f} s; the "
        f"profiler says {inside:.3f} s"
    )
    each = ", ".join(f"{row[-1]:.3f}" for row in found)
    click.echo(f"median ratio {ratio:.4f} over {rounds} rounds ({each})")
    sys.exit(0 if abs(ratio - 1) <= LIMIT else 1)


def _profile(folder: Path) -> list[float]:
    """Milliseconds of every request, as the process said."""
    last = json.loads((folder / "output").read_text().splitlines()[-1])
    return [request["e2e_ms"] for request in last["profile"]["requests"]]


def _seconds(command: list[str], folder: Path, clock: str | None) -> float:
    """Run a process to its end, its output into a file."""
    output = folder / "output"
    if clock is None:
        with output.open("wb") as file:
            began = time.perf_counter()
            subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL, check=True)
            return time.perf_counter() - began
    results = folder / "hyperfine.json"
    arguments = [clock, "-N", "--runs", "1", "--style", "none", "--export-json", str(results)]
    quoted = shlex.join(command)
    subprocess.run([*arguments, "--output", str(output), quoted], check=True, capture_output=True)
    (result,) = json.loads(results.read_text())["results"]
    return float(result["times"][0])


if __name__ == "__main__":
    main()
