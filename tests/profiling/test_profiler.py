"""What is left of a sweep that ends early."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.profiling.plans import plan, row
from tests.profiling.profiles import ENVIRONMENT, sample, turn

from edgedec.errors import DeviceError
from edgedec.runtime.profiling.plan import Measured
from edgedec.runtime.profiling.profiler import Outcome, Site, profile

PLAN = plan({"g2p": "nowhere"}, [row(), row(batch=2)])


def carried_out(*events: Measured, end: BaseException | None) -> tuple[Outcome, list[str]]:
    """Of events that end so, with what happened to their generator."""
    closed: list[str] = []

    def coming() -> Iterator[Measured]:
        try:
            yield from events
            if end is not None:
                raise end
        finally:
            closed.append("closed")

    return profile(PLAN, Site(ENVIRONMENT, {}, coming())), closed


@pytest.mark.parametrize("end", [KeyboardInterrupt(), DeviceError("the cable is cut.")])
def test_what_was_measured_is_kept(end: BaseException) -> None:
    outcome, closed = carried_out(Measured(0, turn=turn(0, [sample(20.0)])), end=end)
    assert closed == ["closed"]
    assert not outcome.profile.complete
    assert [len(row.turns) for row in outcome.profile.rows] == [1, 0]
    assert outcome.profile.rows[0].metrics["e2e_ms"] is not None
    assert "interrupted" in outcome.profile.rows[1].missing["e2e_ms"]
    assert outcome.error is (end if isinstance(end, DeviceError) else None)


def test_all_of_it() -> None:
    outcome, _ = carried_out(
        Measured(0, turn=turn(0, [sample(20.0)])),
        Measured(1, turn=turn(0, [sample(20.0)])),
        end=None,
    )
    assert outcome.profile.complete
    assert outcome.error is None


def test_what_fails_at_once_is_an_error() -> None:
    with pytest.raises(DeviceError, match="cable"):
        carried_out(end=DeviceError("the cable is cut."))
