"""``edgedec profile --via "ssh board"``: measure on another machine what a plan asks for.

One connection does everything: a script of the shell looks for Python and edgedec, makes a
temporary folder that it removes whatever happens, and starts runtime/profiling/board.py in it,
which takes plan and bundles from its input and answers in lines. A program to unpack archives is
not needed, and none can read more of the input than its own part. The answers come from a machine
that may be anybody's: they are limited in length and number, decoded strictly, and rid of
characters that a terminal would obey.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

from edgedec.errors import BundleError, DeviceError, InputError
from edgedec.runtime.bundle import Bundle, open_bundle
from edgedec.runtime.manifest import MANIFEST
from edgedec.runtime.profiling.awaited import Awaited
from edgedec.runtime.profiling.board import BLOCK, Ask, SentFile
from edgedec.runtime.profiling.plan import Measured, Plan
from edgedec.runtime.profiling.profiler import Site, facts_of
from edgedec.runtime.profiling.record import Environment
from edgedec.runtime.profiling.sound import check_values
from edgedec.runtime.profiling.transport import MARK, Transport, parse
from edgedec.runtime.schema import SchemaError, decode, encode

T = TypeVar("T")
Note = Callable[[str], None]
SCRIPT = (
    'echo; echo "{mark}shell"; '
    'if [ -t 0 ]; then echo "{mark}terminal"; exit; fi; '
    'command -v {python} >/dev/null 2>&1 || {{ echo "{mark}no-python"; exit; }}; '
    # not -P, which Python 3.10 does not know
    "PYTHONSAFEPATH=1; export PYTHONSAFEPATH; "
    "{python} -c {ask_python} </dev/null || exit; "
    '{python} -c {ask_version} </dev/null 2>/dev/null || {{ echo "{mark}no-edgedec"; exit; }}; '
    'D=$(mktemp -d) || {{ echo "{mark}no-folder"; exit; }}; '
    "trap 'cd /; rm -rf \"$D\"' EXIT; trap 'exit 1' HUP INT TERM; "
    # also for what others leave there, such as ONNX Runtime's .ses
    'TMPDIR="$D"; export TMPDIR; '
    'cd "$D" && {python} -m edgedec.runtime.profiling.board'
)
ASK_PYTHON = (
    f'import sys; print("{MARK}python %d.%d" % sys.version_info[:2]); '
    "sys.exit(sys.version_info < (3, 10))"
)
ASK_VERSION = f'import importlib.metadata as m; print("{MARK}edgedec " + m.version("edgedec"))'
PROBLEMS = {
    "terminal": (
        "is given a terminal, which changes the bytes of files: switch that off (ssh -T, "
        "adb shell -T, docker exec without -t)"
    ),
    "no-python": (
        "has no {python}: install Python 3.10 or newer and edgedec {version} there, or name its "
        "Python with --remote-python; a device without Python cannot be profiled yet"
    ),
    "no-edgedec": (
        "has no edgedec for its {python}: install the version that is here "
        "({python} -m pip install edgedec=={version})"
    ),
    "no-folder": "could not make a temporary folder: set TMPDIR there to one that can be written",
}


def site(
    plan: Plan,
    prefix: str,
    python: str = "python3",
    *,
    note: Note | None = None,
    copied: Callable[[int, int], None] | None = None,
) -> Site:
    """Another machine, connected and found fit, to carry out a plan.

    Bundles are copied when its first event is asked for, each folder once. A bundle that cannot
    be read here fails its rows only, as does whatever fails a row there. Closing the events, or
    an interruption, ends the work there and removes the copies.

    Args:
        plan: its bundles are folders here.
        prefix: of commands for the other machine, such as ``ssh board``.
        python: the interpreter there; ``~/`` is the home there.
        note: gets sentences about progress.
        copied: gets (bytes sent, bytes in all) while files are copied.

    Raises:
        InputError: the plan has a baseline, or the prefix is no command.
        DeviceError: the other machine cannot measure, answers with something else, or the
            connection broke; the events may end with it, too.
    """
    if any(c.program != "edgedec" for c in plan.configurations):
        raise InputError("--baseline cannot go with --via: run it on the device itself.")
    talk = _talk(plan, prefix, python, note, copied)
    environment = next(talk)
    assert isinstance(environment, Environment)
    return Site(environment, facts_of(plan.bundles), cast("Iterator[Measured]", talk))


def _talk(
    plan: Plan,
    prefix: str,
    python: str,
    note: Note | None,
    copied: Callable[[int, int], None] | None,
) -> Iterator[Environment | Measured]:
    """The other machine, then the events; the connection lasts as long as this."""
    parcel, broken = _pack(plan)
    rows = parcel.rows
    with _board(prefix, python) as (far, free_bytes):
        far.send(_line(parcel.ask))
        answers = _answers(far)
        yield _decode(far, Environment, next(answers, {}).get("environment"), check_values)
        yield from broken
        if free_bytes < parcel.bytes:
            raise DeviceError(
                f"the device has {free_bytes / 1e6:,.0f} MB free in its temporary folder, the "
                f"bundles have {parcel.bytes / 1e6:,.0f} MB: set TMPDIR there to another folder "
                f'(--via "{prefix} env TMPDIR=FOLDER").'
            )
        _send(far, parcel, copied)
        awaited = Awaited(parcel.ask.plan)
        for answer in answers:
            if "measured" in answer:
                event = _decode(far, Measured, answer["measured"], awaited.take)
                yield replace(event, row=rows[event.row])
            elif note is not None and isinstance(answer.get("note"), str):
                note(answer["note"][:1000])
        if awaited.count:
            raise far.died(f"ended with {awaited.count:,} turns missing")


@dataclass(frozen=True)
class _Parcel:
    """What goes to the other machine.

    Attributes:
        ask: with rows of readable bundles only,
        rows: and their numbers in the plan that was asked for.
        paths: of the files here, in the order of ``ask.files``.
        bytes: of all files.
    """

    ask: Ask
    rows: tuple[int, ...]
    paths: tuple[Path, ...]
    bytes: int


def _pack(plan: Plan) -> tuple[_Parcel, list[Measured]]:
    """Name the files of all bundles; the events are rows of bundles that cannot be read."""
    folders: dict[Path, str] = {}
    labels: dict[str, str] = {}
    errors: dict[str, str] = {}
    files: list[SentFile] = []
    paths: list[Path] = []
    for label, given in plan.bundles.items():
        path = Path(given).resolve()
        if path not in folders:
            try:
                bundle = open_bundle(path)
            except BundleError as error:
                errors[label] = str(error)
                continue
            folders[path] = str(len(folders))
            sent = list(_files(bundle, folders[path]))
            files += sent
            paths += [bundle.path(file.name) for file in sent]
        labels[label] = folders[path]
    rows = tuple(i for i, c in enumerate(plan.configurations) if c.bundle in labels)
    there = replace(
        plan, bundles=labels, configurations=tuple(plan.configurations[row] for row in rows)
    )
    parcel = _Parcel(
        Ask(plan=there, files=tuple(files)), rows, tuple(paths), sum(file.bytes for file in files)
    )
    failed = [
        Measured(row, error=errors[c.bundle])
        for row, c in enumerate(plan.configurations)
        if c.bundle in errors
    ]
    return parcel, failed


def _files(bundle: Bundle, folder: str) -> Iterator[SentFile]:
    """The files that the manifest names, and the manifest; nothing else that lies there."""
    yield SentFile(folder, MANIFEST, bundle.path(MANIFEST).stat().st_size)
    for name, entry in bundle.manifest.files.items():
        yield SentFile(folder, name, entry.bytes)


def _send(far: Transport, parcel: _Parcel, copied: Callable[[int, int], None] | None) -> None:
    """Send the files, until the far side has enough of it."""
    done = 0
    for file, path in zip(parcel.ask.files, parcel.paths, strict=True):
        left = file.bytes
        with path.open("rb") as source:
            while left:
                block = source.read(min(left, BLOCK))
                if not block:
                    raise BundleError(f"{file.name} of the bundle changed while it was copied.")
                if not far.send(block):
                    return
                left -= len(block)
                done += len(block)
                if copied is not None:
                    copied(done, parcel.bytes)


def _line(ask: Ask) -> bytes:
    return json.dumps(encode(ask)).encode() + b"\n"


@contextmanager
def _board(prefix: str, python: str) -> Iterator[tuple[Transport, int]]:
    """Start the far end; gives the connection and the bytes that are free there.

    Raises:
        InputError: the prefix is no command.
        DeviceError: the far end does not start.
    """
    ours, word = version("edgedec"), _word(python)
    script = SCRIPT.format(
        mark=MARK,
        python=word,
        ask_python=shlex.quote(ASK_PYTHON),
        ask_version=shlex.quote(ASK_VERSION),
    )
    with closing(Transport(prefix, script)) as far:
        seen = ""
        for answer in far.answers():
            if answer.startswith("{"):
                ready = _parsed(far, answer).get("ready")
                free = ready.get("free_bytes") if isinstance(ready, dict) else None
                if type(free) is not int or not 0 <= free < 1 << 63:
                    break
                yield far, free
                return
            _check(answer, python, ours)
            seen = answer
        raise far.died("could not start the measurement" if seen else "does not answer")


def _check(answer: str, python: str, ours: str) -> None:
    """What the script found on its way to the far end.

    Raises:
        DeviceError: it cannot go on from there.
    """
    word, _, found = answer[:200].partition(" ")
    if word in PROBLEMS:
        raise DeviceError(f"the device {PROBLEMS[word].format(python=python, version=ours)}.")
    if word == "python" and _number(found) < (3, 10):
        raise DeviceError(
            f"the device's {python} is Python {found}, edgedec needs 3.10 or newer: name another "
            "one that is installed there with --remote-python."
        )
    if word == "edgedec" and found != ours:
        raise DeviceError(
            f"the device has edgedec {found}, here is {ours}: what they measure differs; install "
            "the same version on both."
        )


def _number(found: str) -> tuple[int, ...]:
    parts = found.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def _answers(far: Transport) -> Iterator[dict[str, Any]]:
    """Answers of the far end up to its last.

    Raises:
        DeviceError: a problem there, no answer at all, or the connection broke.
    """
    for text in far.answers():
        answer = _parsed(far, text)
        if "end" in answer:
            return
        if "problem" in answer:
            raise DeviceError(f"the device cannot measure: {str(answer['problem'])[:1000]}")
        yield answer
    raise far.died("stopped before it was done, or the connection to it broke")


def _parsed(far: Transport, text: str) -> dict[str, Any]:
    try:
        return parse(text)
    except ValueError as error:
        raise far.died(f"sent an answer that cannot be read: {error}") from error


def _decode(far: Transport, kind: type[T], value: Any, check: Callable[[T], None]) -> T:
    try:
        found = decode(kind, value)
        check(found)
    except SchemaError as error:
        raise far.died(f"sent an answer that cannot be: {str(error)[:300]}") from error
    return found


def _word(python: str) -> str:
    """The interpreter's name for the shell there, whose home it may begin with."""
    if python.startswith("~/"):
        return '"$HOME"/' + shlex.quote(python[2:])
    return shlex.quote(python)
