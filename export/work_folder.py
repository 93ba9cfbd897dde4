"""A folder for what a long run keeps until it is done, which one process at a time works in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edgedec.errors import InputError


@contextmanager
def work_folder(work: Path, out: Path, worth_keeping: Callable[[], bool]) -> Iterator[None]:
    """Make the folder and lock it; it goes when the block succeeds.

    Args:
        work: the folder.
        out: what is being made, for messages.
        worth_keeping: asked where the block fails; if not, the folder goes too.

    Raises:
        InputError: another process works there, or it cannot be written.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"another process is making {str(out)!r}: wait for it, or choose another name."
        ) from error
    except OSError as error:
        raise InputError(f"cannot write to {str(out)!r}: {error.strerror or error}.") from error
    try:
        yield
    except BaseException:
        if not worth_keeping():
            shutil.rmtree(work, ignore_errors=True)
        raise
    else:
        shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.release()
