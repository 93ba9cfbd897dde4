"""The far end of ``edgedec profile --via``: measures here what another machine asks for.

``python -m edgedec.runtime.profiling.board``, in an empty folder that whoever starts it removes.
Input: an `Ask` as one line of JSON, then the bytes of its files, one after another. The input
stays open: when it ends, the other machine does not want any more, or is gone. Output: lines of
`MARK` and one JSON object:

- ``{"ready": {"free_bytes": N}}`` before the input is read,
- ``{"environment": {...}}`` before the files are read,
- ``{"note": "..."}`` and ``{"measured": {...}}`` as they happen,
- ``{"problem": "sentence"}`` if nothing can be measured; ``{"end": true}`` after all others.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from edgedec.errors import EdgedecError
from edgedec.runtime.profiling.environment import environment
from edgedec.runtime.profiling.plan import Plan
from edgedec.runtime.profiling.transport import MARK
from edgedec.runtime.profiling.turns import measure
from edgedec.runtime.schema import decode, encode

BLOCK = 1 << 20
Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class SentFile:
    """A file whose bytes follow: in a folder here, under its name in the bundle."""

    folder: str
    name: str
    bytes: int


@dataclass(frozen=True)
class Ask:
    """What the other machine wants.

    Attributes:
        plan: to be measured; its bundles are folders that ``files`` make.
        files: of the bundles, in the order in which their bytes follow.
    """

    plan: Plan
    files: tuple[SentFile, ...]


def main() -> int:
    """Answer one `Ask`; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    say = _speaker()
    source = sys.stdin.buffer
    try:
        say({"ready": {"free_bytes": shutil.disk_usage(Path.cwd()).free}})
        line = source.readline()
        if line:
            ask = decode(Ask, json.loads(line))
            threads = {configuration.threads for configuration in ask.plan.configurations}
            say({"environment": encode(environment(threads))})
            _receive(ask.files, source)
            threading.Thread(target=_interrupt_at_end, args=(source,), daemon=True).start()
            _measure(ask.plan, say)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say({"end": True})
    except EdgedecError as error:
        say({"problem": str(error)})
    except (KeyboardInterrupt, BrokenPipeError, EOFError):  # nobody listens any more
        return 1
    except OSError as error:
        say({"problem": f"the files cannot be written there: {error.strerror}."})
    return 0


def _speaker() -> Say:
    """Writes answers to our output, which from now on nobody else can write to."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        text = json.dumps(answer, allow_nan=False)
        # in ``adb shell``, the rest of somebody's unfinished line may stand before ours
        output.write(f"\n{MARK}{text}\n".encode())
        output.flush()

    return say


def _receive(files: tuple[SentFile, ...], source: IO[bytes]) -> None:
    """Write the files. Who sends them has a shell here: names are not a matter of trust."""
    for file in files:
        path = Path(file.folder, file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        left = file.bytes
        with path.open("wb") as target:
            while left:
                block = source.read(min(left, BLOCK))
                if not block:
                    raise EOFError
                target.write(block)
                left -= len(block)


def _interrupt_at_end(source: IO[bytes]) -> None:
    """Wait for the end of the input, then interrupt the main thread wherever it waits.

    Not through the buffer of ``source``: its lock would be held when the process ends.
    """
    while os.read(source.fileno(), BLOCK):
        pass
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _measure(plan: Plan, say: Say) -> None:
    here = {label: str(Path(folder).resolve()) for label, folder in plan.bundles.items()}
    events = measure(replace(plan, bundles=here), note=lambda text: say({"note": text}))
    with closing(events):  # type: ignore[type-var]  # generators can be closed
        for event in events:
            say({"measured": encode(event)})


if __name__ == "__main__":
    sys.exit(main())
