"""A progress bar on standard error: only on a terminal, and only once it is worth looking at."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from edgedec.cli.terminal.logs import quiet

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

PATIENCE_S = 1.0  # shorter jobs end before a bar would help


class Bar:
    """Counts up to `total` (None: unknown), in units named by `unit`.

    The bar appears after `PATIENCE_S` seconds, so rich is not even imported for a short job.
    """

    def __init__(self, label: str, total: float | None, *, unit: str = "", shown: bool = True):
        self._label = label
        self._total = total
        self._unit = unit
        self._shown = shown and sys.stderr.isatty() and not quiet()
        self._begin = time.monotonic()
        self._done = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, amount: float) -> None:
        """Count `amount` more."""
        self.update(self._done + amount)

    def update(self, done: float, label: str | None = None) -> None:
        """Stand at `done`; a new `label` says what is going on."""
        self._done = done
        self._label = label or self._label
        if not self._shown or time.monotonic() - self._begin < PATIENCE_S:
            return
        if self._bar is None or self._task is None:
            self._bar, self._task = self._open()
        self._bar.update(self._task, completed=self._done, description=self._label)

    def _open(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        count = "{task.completed:.0f}/{task.total:.0f} " if self._total else "{task.completed:.0f} "
        columns = [TextColumn("{task.description}"), BarColumn()]
        if self._unit:
            columns.append(TextColumn(count + self._unit))
        bar = Progress(
            *columns,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # results must not end up on standard error
        )
        task = bar.add_task(self._label, total=self._total)
        bar.start()
        return bar, task
