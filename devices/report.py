"""What a device offers on this machine, as `edgedec devices` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OperatorReport:
    """How one of edgedec's operators runs here.

    Attributes:
        operator: its name.
        runs_as: a kernel of ours, or its function body in the runtime's standard operators.
        instruction_set: what the kernel is written in; None for a function body.
        reason: why there is no faster way, in a sentence; None where there is none to be had.
    """

    operator: str
    runs_as: Literal["kernel", "function body"]
    instruction_set: str | None
    reason: str | None


@dataclass(frozen=True)
class DeviceReport:
    """A device on this machine.

    Attributes:
        device: its name.
        available: whether it can open bundles here.
        reason: why not; None if it can.
        runtime: what runs its graphs, with the version.
        threads: how many it takes by default.
        library: file of the operator library, None if it is not used.
        instruction_sets: what the library could use here, the best first.
        operators: edgedec's operators; standard ones are the runtime's.
        verified: how far the way there was ever tried, where that is not on the device itself;
            None where it is.
    """

    device: str
    available: bool
    reason: str | None
    runtime: str | None
    threads: int | None = None
    library: str | None = None
    instruction_sets: tuple[str, ...] = ()
    operators: tuple[OperatorReport, ...] = ()
    verified: str | None = None
