"""Contestants take turns: what is wrong is not timed, and medians of the others are kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from gpus.contestants import tolerance
from gpus.workers import Contestants


def time_products(
    workers: Contestants, request: Mapping[str, int], budget: float, rounds: int
) -> dict[str, Any]:
    """Check every contestant's product, time in turns those that are right, check each time.

    Args:
        workers: running `programs/gpu_product.py`.
        request: rows, n and k.
        budget: seconds for each measurement.
        rounds: measurements of each.

    Returns:
        Median microseconds, bytes and errors of those that were right, and why others were not.
    """
    failures: dict[str, str] = {}
    last: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {name: [] for name in workers.running}
    for allowed in (0.0, *[budget] * rounds):  # the first only checks
        for name, own in times.items():
            if name in failures:
                continue
            found = last[name] = workers.ask(name, {**request, "budget": allowed})
            why = found.get("failure") or wrong(name, found["error"])
            if why is not None:
                failures[name] = why
            elif allowed:
                own.append(found["us"])
    right = [name for name in times if name not in failures]
    for name in failures:
        workers.restart(name)
    return {
        "us": {name: statistics.median(times[name]) for name in right},
        "nbytes": {name: last[name]["nbytes"] for name in right},
        "errors": {name: last[name]["error"] for name in right},
        "failures": {**workers.failures, **failures},
    }


def wrong(name: str, error: float) -> str | None:
    """Why a contestant is not timed, None where it is right."""
    if error <= tolerance(name):  # NaN is not
        return None
    return f"wrong: {error:.1e} from NumPy, {tolerance(name):.0e} allowed"


def time_steps(
    workers: Contestants, wanted: Mapping[str, list[int]], same: int, rounds: int
) -> dict[str, Any]:
    """Time in turns those whose first tokens are what is wanted.

    Args:
        workers: running `programs/gpu_decode.py`.
        wanted: name -> tokens.
        same: as many of them must be equal.
        rounds: measurements of each.

    Returns:
        Medians and versions of those that were right, and why others were not.
    """
    failures = dict(workers.failures)
    samples: dict[str, list[dict[str, float]]] = {}
    for name, worker in workers.running.items():
        equal = common(worker.hello["tokens"], wanted[name])
        if equal < min(same, len(wanted[name])):
            failures[name] = f"wrong: after {equal} tokens it chooses another one than the CPU"
        else:
            samples[name] = []
    for _ in range(rounds):
        for name, own in samples.items():
            if name not in failures:
                found = workers.ask(name, "go")
                if "failure" in found:
                    failures[name] = found["failure"]
                own.append(found)
    return {
        "programs": {
            name: {key: statistics.median(sample[key] for sample in own) for key in own[0]}
            | {"version": workers.running[name].hello["version"]}
            for name, own in samples.items()
            if name not in failures
        },
        "failures": failures,
    }


def common(found: list[int], wanted: list[int]) -> int:
    """How many first tokens are the same."""
    pairs = enumerate(zip(found, wanted, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(found), len(wanted)))
