"""How a benchmarked program talks to ``peers.py``: one JSON line in, one JSON line out.

A program loads its model once and says so; then every line on its input asks for one measurement.
Between measurements it waits without using a core, so programs can take turns.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """What every program measures: greedy decoding of ``new_tokens`` from each of ``sources``."""

    checkpoint: Path
    threads: int
    sources: list[list[int]]
    new_tokens: int


def read_task() -> Task:
    """The task from the command line."""
    fields: dict[str, Any] = json.loads(sys.argv[1])
    return Task(**{**fields, "checkpoint": Path(fields["checkpoint"])})


def serve(task: Task, generate: Callable[[int], int], version: str, started: float) -> None:
    """Measure ``generate(n)``, which decodes n tokens per source, each time the caller asks.

    ``generate`` returns the number of tokens it produced for the first source; any other number
    than n would make the figures meaningless and ends the program.
    """

    def timed(count: int) -> float:
        begin = time.perf_counter()
        produced = generate(count)
        elapsed = time.perf_counter() - begin
        if produced != count:
            sys.exit(f"asked for {count} tokens, got {produced}")
        return elapsed

    timed(2)
    answer({"version": version, "load_s": time.perf_counter() - started})
    for _ in sys.stdin:
        first, total = timed(1), timed(task.new_tokens)
        answer(
            {
                "first_ms": 1e3 * first,
                "per_token_ms": 1e3 * (total - first) / (task.new_tokens - 1),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            }
        )


def answer(value: dict[str, Any]) -> None:
    """Print one line for the caller."""
    print(json.dumps(value), flush=True)
