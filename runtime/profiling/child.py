"""A worker process, seen from the one that starts it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from edgedec.runtime.profiling.plan import Job
from edgedec.runtime.schema import encode

# Where a file of the working directory could hide a package, `-m` shall not look for any.
SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()


class Failure(Exception):  # noqa: N818  # of a row, not of the sweep
    """A process ended without an answer; the message is a sentence for the user."""


class Child:
    """A process that does jobs, until it is closed; its temporary files go with it.

    Args:
        module: that it runs; it follows `edgedec.runtime.profiling.serve.serve`.

    Attributes:
        started: `time.monotonic` just before its start.
    """

    def __init__(self, module: str) -> None:
        # A file, as nobody reads it meanwhile and a pipe holds little.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with it
        # It is killed in the end, and could not remove what it or ONNX Runtime leave there.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *SAFE_PATH, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "TMPDIR": self._folder.name},
        )

    def close(self) -> None:
        """End it, whatever it is doing."""
        process = self._process
        process.kill()
        process.wait()
        self._folder.cleanup()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):  # it ended before it read everything
                pipe.close()
        if said := self._said():
            logging.getLogger(__name__).debug("a worker said:\n%s", said)
        self._errors.close()

    @property
    def alive(self) -> bool:
        """Whether it can do another job."""
        return self._process.poll() is None

    def ask(self, job: Job) -> dict[str, Any]:
        """Let it do a job, and wait for the answer.

        Raises:
            Failure: it ended without one.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):  # it has ended already; what follows says how
            process.stdin.write(json.dumps(encode(job)).encode() + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            process.wait()
            raise Failure(self._why())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _why(self) -> str:
        code = self._process.returncode
        if code == -getattr(signal, "SIGKILL", 9):
            return (
                "the process that measured was killed, most likely because memory ran out: use "
                "smaller inputs, a smaller batch or a smaller bundle."
            )
        how = f"with exit code {code}"
        if code < 0:
            how = f"by {signal.strsignal(-code) or f'signal {-code}'}"
        last = (self._said().strip().splitlines() or ["it said nothing"])[-1][:300]
        return f"the process that measured ended {how} ({last}); -v shows more."

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace").strip()
