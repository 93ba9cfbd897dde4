"""Results as lines of JSON, which a benchmark that was stopped goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(results: Path) -> list[dict[str, Any]]:
    """All results so far."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def find(results: Path, key: Mapping[str, object]) -> dict[str, Any] | None:
    """The first result that has all of these values."""
    for found in read(results):
        if all(found.get(name) == value for name, value in key.items()):
            return found
    return None


def keep(results: Path, found: Mapping[str, Any]) -> None:
    """Add a result, and print it."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(found) + "\n")
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
