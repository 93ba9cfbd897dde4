"""How a benchmarked program talks to its caller: a task as JSON, then one JSON line per request.

A program loads its model, decodes one token, and says so; then every line on its input asks for one
measurement. Between measurements it is stopped (SIGSTOP), so that programs can take turns.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

# Some libraries print; only answers may reach the caller.
_CALLER = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


@dataclass(frozen=True)
class Task:
    """What every program measures: greedy decoding of ``new_tokens`` from each of ``sources``.

    ``model`` is the converted model; ``setting`` is what a script with several variants needs.
    """

    model: Path
    setting: str
    threads: int
    sources: list[list[int]]
    new_tokens: int


def read_task() -> Task:
    """The task from the command line."""
    fields: dict[str, Any] = json.loads(sys.argv[1])
    return Task(**{**fields, "model": Path(fields["model"])})


def serve(
    task: Task,
    generate: Callable[[int], int],
    version: str,
    facts: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Measure ``generate(n)``, which decodes n tokens per source, each time the caller asks.

    ``generate`` returns the number of tokens it produced for the first source; any other number
    than n would make the figures meaningless and ends the program. ``facts`` go into the first
    answer, beside the version.
    """

    def timed(count: int) -> float:
        begin = time.perf_counter()
        produced = generate(count)
        elapsed = time.perf_counter() - begin
        if produced != count:
            sys.exit(f"asked for {count} tokens, got {produced}")
        return elapsed

    timed(1)
    answer({"version": version, **facts})
    for _ in sys.stdin:
        timed(2)  # the caches belonged to the programs before
        first, total = timed(1), timed(task.new_tokens)
        answer(
            {
                "first_ms": 1e3 * first,
                "per_token_ms": 1e3 * (total - first) / (task.new_tokens - 1),
                "peak_rss_mb": peak_rss_mb(),
            }
        )


def peak_rss_mb() -> float:
    """The most memory that this process ever had resident, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before this program started
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def answer(value: dict[str, Any]) -> None:
    """Print one line for the caller."""
    print(json.dumps(value), file=_CALLER, flush=True)
