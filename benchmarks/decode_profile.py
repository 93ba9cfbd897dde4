"""Where the time of a decoding step goes, by operator.

    python benchmarks/decode_profile.py BUNDLE

Runs greedy decoding twice: as it is, for the time per token; and with ONNX Runtime's profiling of
every session, whose records of the decoder's runs are summed by operator, or by operator and
shapes. Keeping records takes time itself, many times what a small operator takes: what the cheapest
operator seems to take is counted as that, and taken off every call.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import onnxruntime
from rich.console import Console
from rich.table import Table

import edgedec


@dataclass
class Spent:
    """Calls and microseconds of an operator, over all steps."""

    calls: int = 0
    us: float = 0.0


@click.command()
@click.argument("bundle")
@click.option("--source", "-s", default=64, show_default=True, help="Source tokens.")
@click.option("--tokens", "-n", default=64, show_default=True, help="Tokens to decode.")
@click.option("--threads", "-t", default=1, show_default=True)
@click.option("--shapes", is_flag=True, help="One line per operator and shape of its inputs.")
@click.option("--component", default="decoder.onnx", show_default=True, help="Which graph.")
def main(bundle: str, source: int, tokens: int, threads: int, shapes: bool, component: str) -> None:
    """Print the time per token by operator."""
    plain = statistics.median(_step_ms(edgedec.load(bundle, threads=threads), source, tokens))
    with tempfile.TemporaryDirectory() as folder:
        profiled, records = _profiled(bundle, threads, source, tokens, Path(folder), component)
    runs = sum(r["name"] == "model_run" for r in records)
    spent: dict[str, Spent] = defaultdict(Spent)
    for record in records:
        if record["name"].endswith("_kernel_time"):
            entry = spent[_label(record["args"], shapes=shapes)]
            entry.calls += 1
            entry.us += record["dur"]
    record_us = min(entry.us / entry.calls for entry in spent.values())
    for entry in spent.values():
        entry.us -= entry.calls * record_us
    kernels = sum(entry.us for entry in spent.values())
    table = Table(
        title=f"{component} of {bundle}, {threads} thread(s): {plain:.3f} ms per token, "
        f"{profiled:.3f} ms with records of {record_us:.1f} us"
    )
    table.add_column("operator")
    for column in ("per run", "us per run", "us per call", "share"):
        table.add_column(column, justify="right")
    for name, entry in sorted(spent.items(), key=lambda item: -item[1].us):
        table.add_row(
            name,
            f"{entry.calls / runs:.0f}",
            f"{entry.us / runs:.0f}",
            f"{entry.us / entry.calls:.1f}",
            f"{entry.us / kernels:.1%}",
        )
    table.add_section()
    table.add_row("all kernels", "", f"{kernels / runs:.0f}", "", "")
    table.add_row("outside of kernels", "", f"{1e3 * plain - kernels / runs:.0f}", "", "")
    Console(width=110).print(table)


def _step_ms(generator: Any, source: int, tokens: int) -> list[float]:
    """Milliseconds of each token after the first, without an end token."""
    ids = list(range(5, 5 + source))
    chunks = generator.stream(
        ids, max_new_tokens=tokens, min_new_tokens=tokens, eos_token_ids=[], num_beams=1
    )
    times = [time.perf_counter() for _ in chunks]
    return [1e3 * (after - before) for before, after in pairwise(times)]


def _profiled(
    bundle: str, threads: int, source: int, tokens: int, folder: Path, component: str
) -> tuple[float, list[dict[str, Any]]]:
    """Milliseconds per token, and what ONNX Runtime recorded of one graph."""
    sessions: dict[str, Any] = {}
    plain = onnxruntime.InferenceSession

    def profiling(graph: Any, options: Any, **rest: Any) -> Any:
        """A session that keeps records."""
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = sessions[Path(graph).name] = plain(graph, options, **rest)
        return session

    onnxruntime.InferenceSession = profiling  # the only way in: devices choose the options
    try:
        generator = edgedec.load(bundle, threads=threads)
    finally:
        onnxruntime.InferenceSession = plain
    ms = statistics.median(_step_ms(generator, source, tokens))
    files = {name: session.end_profiling() for name, session in sessions.items()}
    if component not in files:
        raise click.ClickException(f"no {component}; there are: {', '.join(files)}")
    records: list[dict[str, Any]] = json.loads(Path(files[component]).read_text())
    return ms, records


def _label(args: dict[str, Any], *, shapes: bool) -> str:
    """An operator's name, with the shapes of its inputs if asked for."""
    name = str(args["op_name"])
    if not shapes:
        return name
    return f"{name} {' '.join(_shapes(args.get('input_type_shape', [])))}"


def _shapes(inputs: Iterable[dict[str, list[int]]]) -> Iterable[str]:
    for tensor in inputs:
        for shape in tensor.values():
            yield "x".join(map(str, shape)) or "scalar"


if __name__ == "__main__":
    main()
