"""Ctrl-C and the like, while TensorRT works."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back what Python makes of signals until the block ends.

    TensorRT calls our logger, where Python would raise KeyboardInterrupt, and goes on as if nothing
    had been: the user's Ctrl-C would be lost. What ends the process without Python still does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number: handler for number, handler in before.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda got, _: came.append(got))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)
