"""Contestants' processes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from comparison.turns import Worker, single_threaded_libraries

BENCHMARKS = Path(__file__).parent.parent
PYTHON_PATH = os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH"))))


class Contestants:
    """Processes of one program, each with a task of its own.

    One that cannot start is left out, with a word.

    Args:
        program: a file in ``programs/``.
        tasks: name -> what its process gets.

    Attributes:
        running: those that started.
        failures: why the others did not.
    """

    def __init__(self, program: str, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        self._program, self._tasks = str(BENCHMARKS / "programs" / program), tasks
        self.running: dict[str, Worker] = {}
        self.failures: dict[str, str] = {}
        for name in tasks:
            self.restart(name)

    def restart(self, name: str) -> None:
        """Start a contestant, again if it runs: after an error a GPU may refuse everything."""
        if name in self.running:
            self.running.pop(name).close()
        command = [sys.executable, self._program, json.dumps(self._tasks[name])]
        variables = {**single_threaded_libraries(1), "PYTHONPATH": PYTHON_PATH}
        try:
            self.running[name] = Worker(name, command, variables)
        except click.ClickException as error:
            click.echo(f"{name} is left out: {error.message}", err=True)
            self.failures[name] = error.message

    def ask(self, name: str, request: object) -> dict[str, Any]:
        """What a contestant answers; that it ended is an answer, too."""
        try:
            return self.running[name].ask(request)
        except (click.ClickException, BrokenPipeError) as error:
            return {"failure": str(error)}

    def close(self) -> None:
        """End all."""
        for worker in self.running.values():
            worker.close()


@contextmanager
def contestants(program: str, tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[Contestants]:
    """Contestants that end with the block."""
    found = Contestants(program, tasks)
    try:
        yield found
    finally:
        found.close()
