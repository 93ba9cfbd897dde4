"""Where a run keeps its state until it is done, and how its result takes its place."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgedec.adapt.writer import RECORD
from edgedec.errors import CheckpointError, InputError
from edgedec.export.work_folder import work_folder

FACTS = "facts.json"
STATE = "state.pt"
CHECKSUMS = ("text", "checkpoint")
"""Facts that are checksums, which say nothing to anybody; the others are options."""


@contextmanager
def workplace(out: Path, *, resume: bool, force: bool) -> Iterator[Path]:
    """A hidden folder beside ``out`` that goes when the block succeeds.

    It stays where the block fails and a state is in it, so that ``--resume`` can go on.

    Raises:
        InputError: ``out`` is something else, another process is at work, or a run was interrupted
            and it is not said what shall become of it.
    """
    _check_target(out, force=force)
    work = out.parent / f".{out.name}.adapting"
    state = work / STATE
    with work_folder(work, out, state.exists):
        interrupted = state.exists()
        if resume and not interrupted:
            raise InputError(f"there is no interrupted run for {str(out)!r}: leave out --resume.")
        if interrupted and not resume:
            if not force:
                raise InputError(
                    f"a run for {str(out)!r} was interrupted: go on with --resume, or begin again "
                    "with --force."
                )
            state.unlink()
        yield work


def same_run(work: Path, facts: Mapping[str, Any], *, resume: bool) -> None:
    """Note what a run's result depends on, or compare it with the interrupted one's.

    Raises:
        InputError: they differ; with the first difference.
    """
    path = work / FACTS
    if not resume:
        path.write_text(json.dumps(facts), encoding="utf-8")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the interrupted run in {str(work)!r} cannot be read: begin again with --force."
        ) from error
    for key, value in json.loads(json.dumps(facts)).items():
        if before.get(key) != value:
            raise InputError(
                f"the interrupted run had {_difference(key, before.get(key), value)}: give the "
                "same, or begin again with --force."
            )


@contextmanager
def result(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block succeeds.

    Raises:
        CheckpointError: it could not be written.
    """
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
            out.replace(old / out.name)
            partial.replace(out)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.replace(out)
    except OSError as error:
        raise CheckpointError(
            f"{str(out)!r} could not be written: {error.strerror or error}."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _difference(key: str, before: object, now: object) -> str:
    if key in CHECKSUMS:
        return f"another {key}"
    return f"{_option(key, before)}, this one has {_option(key, now)}"


def _option(key: str, value: object) -> str:
    """An option with its value as it is given: ``--steps 5``, ``--lora``, ``no --minutes``."""
    name = f"--{key.replace('_', '-')}"
    if value is None or value is False:
        return f"no {name}"
    return name if value is True else f"{name} {value}"


def _check_target(out: Path, *, force: bool) -> None:
    if not out.name or out.resolve() == Path.cwd():
        raise InputError(f"{str(out)!r} is no name for a checkpoint: give one for a new folder.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / RECORD).is_file():
        raise InputError(
            f"{str(out)!r} exists and was not made by edgedec adapt: choose another name."
        )
    if not force:
        raise InputError(f"{str(out)!r} exists: choose another name, or replace it with --force.")
