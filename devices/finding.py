"""What the doctor says of one thing that a way to a device needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "untested", "failed", "not reached"]


@dataclass(frozen=True)
class Finding:
    """One thing that a route needs.

    Attributes:
        state: whether it is there or works; untested where it may be, not reached where something
            that it needs does not.
        what: a sentence without its full stop.
        command: the one command that adds it; None where it is there, or no command adds it.
        step: name of the step that was tried; None where it was only looked at.
        seconds: that it took.
    """

    state: State
    what: str
    command: str | None = None
    step: str | None = None
    seconds: float | None = None
