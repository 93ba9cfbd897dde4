"""End a command that is asked to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM  # what a shell reports for a process ended by SIGTERM


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Unwind when asked to stop, so that what is half written goes away, and exit with 143.

    The handler raises SystemExit wherever Python is. An extension that is being imported makes an
    ImportError of it, and other code may catch it, so what counts is that it was asked.
    """
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        asked = True
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        if asked:
            sys.exit(TERMINATED)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked:
        sys.exit(TERMINATED)
