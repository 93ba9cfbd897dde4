"""What TensorRT says while it works."""

from __future__ import annotations

import threading
from collections import deque
from functools import cache
from typing import Any

KEPT = 1000
"""Messages that are remembered."""
SILENT = "it does not say why"
Said = tuple[str, str]
"""A message's severity, ``WARNING`` or one with ``ERROR`` in it, and its text."""


class Log:
    """Warnings and errors of one of TensorRT's packages, in order.

    Args:
        module: of TensorRT's.

    Attributes:
        logger: is given to TensorRT.
    """

    def __init__(self, module: Any) -> None:
        self._said: deque[Said] = deque(maxlen=KEPT)
        self._count = 0
        self._lock = threading.Lock()
        keep = self._keep

        class Logger(module.ILogger):  # type: ignore[misc]  # known at run time only
            """Keeps what it is told; TensorRT's own prints it."""

            def __init__(self) -> None:
                # Not super(): the bindings refuse objects whose own constructor was not called.
                module.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                keep(str(severity.name), msg)

        self.logger = Logger()

    def _keep(self, severity: str, text: str) -> None:
        if severity == "WARNING" or "ERROR" in severity:
            with self._lock:
                self._said.append((severity, text))
                self._count += 1

    def mark(self) -> int:
        """Where the log is now, for `since`."""
        return self._count

    def since(self, mark: int) -> list[Said]:
        """What was said after a mark."""
        with self._lock:
            said = list(self._said)
            new = self._count - mark
        return said[max(len(said) - new, 0) :]

    def first(self, mark: int = 0) -> str | None:
        """The first error after a mark, as later ones mostly follow from it; None without."""
        return next((line(text) for word, text in self.since(mark) if word != "WARNING"), None)

    def last(self) -> str:
        """The last error."""
        errors = [text for word, text in self.since(0) if word != "WARNING"]
        return line(errors[-1]) if errors else SILENT


@cache
def log_of(module: Any) -> Log:
    """The log of a package: TensorRT takes one logger for a process, and ignores others."""
    return Log(module)


def line(text: str) -> str:
    """What is worth telling of a message: one line without control characters."""
    first = (text.strip().splitlines() or ["nothing"])[0][:300].rstrip(". ")
    return "".join(letter if letter.isprintable() else "?" for letter in first)
