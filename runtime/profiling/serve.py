"""The far side of a worker process: jobs come as lines of JSON, each is answered by one line."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from edgedec.runtime.profiling.plan import Job


def keep_output() -> TextIO:
    """What standard output was: from now on, whatever a library prints goes to standard error."""
    # Ctrl-C reaches every process of a terminal; whoever started this one will end it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return answers


def serve(carry_out: Callable[[Job], dict[str, Any]], answers: TextIO) -> None:
    """Answer jobs until standard input ends, which ends this process at once.

    So no worker outlives whoever started it, even if that one is killed.

    Args:
        carry_out: does a job; what it returns is encoded as JSON. Errors become ``{"error": ...}``.
        answers: of `keep_output`.
    """
    from edgedec.runtime.schema import encode

    for job in _jobs():
        text = json.dumps(encode(_answer(carry_out, job)))
        answers.write(text + "\n")
        answers.flush()


def _answer(carry_out: Callable[[Job], dict[str, Any]], line: bytes) -> dict[str, Any]:
    from edgedec.errors import EdgedecError
    from edgedec.runtime.profiling.plan import Job
    from edgedec.runtime.schema import decode

    try:
        return carry_out(decode(Job, json.loads(line)))
    except EdgedecError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "there is not enough memory: use smaller inputs, or fewer at a time."}
    except Exception as error:  # noqa: BLE001  # a defect must not end the sweep
        import traceback

        traceback.print_exc()
        return {"error": f"a defect of edgedec ({type(error).__name__}: {error}); -v shows more."}


def _jobs() -> Iterator[bytes]:
    """Lines of standard input; a thread waits for the next one, or the end, while a job runs."""
    import queue

    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def wait() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    while True:
        yield lines.get()
