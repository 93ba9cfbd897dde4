"""A command prefix (``ssh board``) as a connection to a process on another machine."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from typing import IO, Any

from edgedec.errors import DeviceError, InputError
from edgedec.runtime.manifest import UNPRINTABLE

MARK = "#edgedec "
"""What our lines begin with: login scripts and ``adb shell`` put others between them."""
MAX_LINE = 1 << 26
"""Bytes of one line of ours, and of all others together; a trace of a long request has a tenth."""
LONGEST_MESSAGE = 200
"""Characters of a line of somebody else that a message quotes."""
PATIENCE = 10.0
"""Seconds that the far side has to stop its worker and to remove what was copied."""


class Transport:
    """Runs a script of the POSIX shell behind a prefix, until `close`.

    The prefix is split like a shell's words and gets one more: ``sh -c '...'``. So whatever
    passes its last word, or all its words, to some shell will do, and the prefix may end in ``env
    TMPDIR=/mnt``. The process stays in our group: ssh may ask for a password at the terminal.

    Args:
        prefix: of the command, as ``--via`` takes it.
        script: in one line.

    Raises:
        InputError: the prefix is no command.
        DeviceError: it cannot be started.
    """

    def __init__(self, prefix: str, script: str) -> None:
        try:
            words = shlex.split(prefix)
        except ValueError as error:
            raise InputError(f"--via {prefix!r} is not a command: {error}.") from error
        if not words:
            raise InputError('--via needs a command that runs others, such as --via "ssh board".')
        self.prefix = prefix
        self._last_error = self._last_other = ""
        self._ended = False
        try:
            self._process = subprocess.Popen(
                [*words, f"sh -c {shlex.quote(script)}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise DeviceError(
                f"--via {prefix!r} cannot be started: {error.strerror or error}."
            ) from error
        self._stdin = _given(self._process.stdin)
        self._stdout = _given(self._process.stdout)
        self._errors = threading.Thread(
            target=self._read_errors, args=(_given(self._process.stderr),), daemon=True
        )
        self._errors.start()

    def close(self) -> None:
        """Close our ends, which ends the far side, and wait for it a little."""
        for stream in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                stream.close()
        for end in (self._process.terminate, self._process.kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
                return
            end()
        self._process.wait()

    def send(self, data: bytes) -> bool:
        """Write to the far side's input; False if it does not read any more."""
        left = memoryview(data)
        try:
            while left:
                # not through the buffer, which would wait in `close` for who does not read
                left = left[os.write(self._stdin.fileno(), left) :]
        except OSError:  # it has ended: what it said of that is still to be read
            return False
        return True

    def answers(self) -> Iterator[str]:
        """Our lines without the mark, as they come, until the far side's output ends.

        Raises:
            DeviceError: a line is too long, or too much else is sent.
        """
        mark, others = MARK.encode(), 0
        while line := self._stdout.readline(MAX_LINE + 1):
            if line.startswith(mark):
                if len(line) > MAX_LINE:
                    raise self.died(f"sent an answer of more than {MAX_LINE:,} bytes")
                yield line[len(mark) :].decode(errors="replace").strip()
                continue
            others += len(line)
            if others > MAX_LINE:
                raise self.died("sends what is no answer, and does not end")
            self._last_other = message(line) or self._last_other
        self._ended = True

    def died(self, what: str) -> DeviceError:
        """An error that quotes the last line of the far side's messages.

        Args:
            what: it did: a predicate.
        """
        if self._ended:
            self._errors.join(timeout=1)  # its last message may come after its last answer
        said = self._last_error or self._last_other
        tail = f' (its last message: "{said}").' if said else "."
        return DeviceError(f"the device behind --via {self.prefix!r} {what}{tail}")

    def _read_errors(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(MAX_LINE):
                self._last_error = message(line) or self._last_error


def parse(answer: str) -> dict[str, Any]:
    """An answer in JSON, without characters that a terminal would obey.

    Raises:
        ValueError: it is none.
    """
    try:
        value = _clean(json.loads(answer))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    return value


def message(line: bytes) -> str:
    """The beginning of a line of somebody else; nothing of one that has our own words in it."""
    if MARK.encode() in line:  # a program that repeats the script instead of running it
        return ""
    text = line[: 4 * LONGEST_MESSAGE].decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()[:LONGEST_MESSAGE]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return UNPRINTABLE.sub(" ", value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value


def _given(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # all three are pipes
    return stream
