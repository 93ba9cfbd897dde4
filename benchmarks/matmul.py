"""Time one matrix product in every weight format, per shape and number of rows.

    python benchmarks/matmul.py --rows 1 --rows 8

Where the weights are makes most of the difference, so each number of rows has three tables:

- hot: 16 products with the same weight, which stays in the caches as far as it fits;
- model: 24 million weights, as many as a small decoder has. Whether they fit into the last-level
  cache depends on the format, as it does in use;
- cold: weights of 1.5 times the last-level cache, so all of them come from memory in any format.

Each format runs in a process of its own, stopped while others are measured; the formats
take turns, and medians over the rounds are printed.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from comparison.machine import last_level_cache, machine
from comparison.turns import Worker, single_threaded_libraries
from rich.console import Console
from rich.table import Table

FORMATS = ("fp32", "nbits4", "int8", "cb4", "cb3", "cb2", "cb8")
SHAPES = (
    "512x512",
    "512x2048",
    "2048x512",
    "768x3072",
    "1024x4096",
    "4096x1024",
    "512x32128",
    "2048x2048",
)
WORKER = Path(__file__).parent / "programs" / "one_matmul.py"
TARGETS = {1: {"fp32": 10.0, "nbits4": 2.0, "int8": 2.5}, 8: {"fp32": 6.0}, 128: {"int8": 1.0}}
"""Rows -> how many times faster than these formats cb4 is to be, with a model's weights."""
PLACES = ("hot", "model", "cold")


@dataclass(frozen=True)
class Point:
    """What is asked of every format: rows of X, where the weights are, seconds to spend."""

    rows: int
    place: str
    budget: float


@click.command()
@click.option("--rows", "-m", multiple=True, type=int, default=(1, 8, 32, 128), show_default=True)
@click.option("--shape", "shapes", multiple=True, default=SHAPES, show_default=True, help="KxN")
@click.option("--place", "places", multiple=True, default=PLACES, show_default=True)
@click.option("--format", "formats", multiple=True, default=FORMATS, show_default=True)
@click.option("--threads", "-t", default=1, show_default=True)
@click.option("--rounds", "-r", default=5, show_default=True)
@click.option("--budget", default=0.1, show_default=True, help="Seconds per measurement.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write medians.")
def main(
    rows: tuple[int, ...],
    shapes: tuple[str, ...],
    places: tuple[str, ...],
    formats: tuple[str, ...],
    threads: int,
    rounds: int,
    budget: float,
    json_file: Path | None,
) -> None:
    """Print a table per number of rows and place of the weights."""
    points = [Point(m, place, budget) for m in rows for place in places]
    results = []
    for shape in shapes:
        click.echo(shape, err=True)
        results += _measure(shape, formats, threads, points, rounds)
    for point in points:
        found = [r for r in results if (r["rows"], r["place"]) == (point.rows, point.place)]
        _print(point, found, threads)
    if json_file is not None:
        report = {"machine": machine(), "threads": threads, "results": results}
        json_file.write_text(json.dumps(report, indent=1))


def _measure(
    shape: str,
    formats: tuple[str, ...],
    threads: int,
    points: list[Point],
    rounds: int,
) -> list[dict[str, Any]]:
    """Median microseconds of every format at every point."""
    k, n = (int(part) for part in shape.split("x"))
    task = {"inputs": k, "outputs": n, "threads": threads}
    task["cold_bytes"] = last_level_cache() * 3 // 2
    workers: dict[str, Worker] = {}
    try:
        for name in formats:
            command = [sys.executable, str(WORKER), json.dumps({**task, "format": name})]
            workers[name] = Worker(name, command, single_threaded_libraries(threads))
        found = []
        for point in points:
            times: dict[str, list[float]] = {name: [] for name in formats}
            for _ in range(rounds):
                for name, worker in workers.items():
                    times[name].append(worker.ask(asdict(point))["us"])
            medians = {name: statistics.median(values) for name, values in times.items()}
            found.append({"shape": shape, **asdict(point), "us": medians})
        return found
    finally:
        for worker in workers.values():
            worker.close()


def _print(point: Point, results: list[dict[str, Any]], threads: int) -> None:
    formats = list(results[0]["us"])
    others = [name for name in formats if not name.startswith("cb") and "cb4" in formats]
    table = Table(title=f"{point.rows} row(s), {point.place}, {threads} thread(s); microseconds")
    for column in ("K x N", *formats, *(f"cb4 : {name}" for name in others)):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        us = result["us"]
        table.add_row(
            result["shape"],
            *(f"{us[name]:.1f}" for name in formats),
            *(f"{us[name] / us['cb4']:.2f}" for name in others),
        )
    wanted = TARGETS.get(point.rows, {})
    if point.place == "model":
        goals = [f"{wanted[name]:.1f}" if name in wanted else "" for name in others]
        table.add_section()
        table.add_row("at least", *("" for _ in formats), *goals)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
