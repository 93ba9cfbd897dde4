"""Programs that take turns: each in a process of its own, stopped while another is measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import click


class Worker:
    """A process that answers one line of JSON per line that it is sent.

    Threads of ONNX Runtime and OpenMP go on spinning for a while after their work, and would do so
    on the cores of the program whose turn is next. So a worker is stopped (SIGSTOP) from the moment
    it has answered until it is asked again.

    Args:
        name: for messages.
        command: the program, with arguments.
        variables: environment variables beside this process's own.

    Raises:
        ClickException: it ended before its first answer.
    """

    def __init__(self, name: str, command: list[str], variables: Mapping[str, str]) -> None:
        self.name = name
        self.load_s = 0.0
        """Seconds from starting the process to its first answer."""
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **variables},
        )
        self.hello = self._answer()
        self.load_s = time.perf_counter() - begin

    def ask(self, request: object = "go") -> dict[str, Any]:
        """Let it run until it has answered."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            raise click.ClickException(f"{self.name} stopped with exit code {code}: {last}")
        self._process.send_signal(signal.SIGSTOP)
        value: dict[str, Any] = json.loads(line)
        return value


def single_threaded_libraries(threads: int) -> dict[str, str]:
    """Environment variables that hold numeric libraries to as many threads as the program has."""
    return {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
