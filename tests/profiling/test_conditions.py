"""What else the machine did, and the warnings that follow from it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.profiling.profiles import CONDITIONS, ENVIRONMENT, sample, turn

from edgedec.runtime.profiling import conditions
from edgedec.runtime.profiling.conditions import Watch, clock_mhz, warnings_of, yardstick_ms
from edgedec.runtime.profiling.record import Conditions, Effort, Turn

TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
EFFORT = Effort(rounds=5, repetitions=10, warmup=2, fresh=True, seed=0)
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "gnice")


def write_stat(proc: Path, **seconds: float) -> None:
    """A ``/proc/stat`` in which all cores together did that since the start."""
    ticks = [round(seconds.get(name, 0.0) * TICK) for name in FIELDS]
    (proc / "stat").write_text(
        f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n"
    )


def watched(proc: Path, before: dict[str, float], after: dict[str, float]) -> Conditions:
    """Conditions of a process that idled meanwhile."""
    write_stat(proc, **before)
    watch = Watch(proc, proc)
    time.sleep(1.5 * conditions.SHORTEST)
    write_stat(proc, **after)
    return watch.conditions()


def test_shares_are_of_all_cores_time(tmp_path: Path) -> None:
    before = {"user": 1000.0, "system": 200.0, "idle": 5000.0, "steal": 7.0}
    after = {"user": 1020.0, "system": 210.0, "idle": 5060.0, "steal": 17.0}
    found = watched(tmp_path, before, after)
    # 20 + 10 of 100 seconds; our own few milliseconds are taken off
    assert found.others == pytest.approx(0.30, abs=0.01)
    assert found.stolen == pytest.approx(0.10, abs=1e-6)


def test_guests_are_not_counted_twice(tmp_path: Path) -> None:
    after = {"user": 40.0, "guest": 40.0, "nice": 10.0, "gnice": 10.0, "idle": 50.0}
    assert watched(tmp_path, {}, after).others == pytest.approx(0.50, abs=0.01)


def test_interrupts_are_others_work_and_waiting_for_disks_is_not(tmp_path: Path) -> None:
    after = {"irq": 5.0, "softirq": 15.0, "iowait": 30.0, "idle": 50.0}
    assert watched(tmp_path, {}, after).others == pytest.approx(0.20, abs=0.01)


def test_our_own_work_is_taken_off(tmp_path: Path) -> None:
    write_stat(tmp_path)
    watch = Watch(tmp_path, tmp_path)
    began, first = time.process_time(), time.monotonic()
    while time.process_time() - began < 0.1 or time.monotonic() - first < conditions.SHORTEST:
        sum(range(1000))
    write_stat(tmp_path, user=0.2, idle=0.8)
    found = watch.conditions()
    assert found.others is not None
    # others had the rest of the 0.2 s; we may have used a little more than 0.1
    assert found.others < 0.11


@pytest.mark.parametrize(
    ("after", "others", "stolen"),
    [
        # counters have run backwards in virtual machines that were moved
        ({"user": 99.0, "steal": 50.0, "idle": 190.0}, 0.0, 0.31),
        ({"user": 150.0, "steal": 9.0, "idle": 141.0}, 0.5, 0.0),
        ({"user": 200.0, "steal": 10.0, "idle": 50.0}, 1.0, 0.0),
        ({"user": 100.0, "steal": 10.0, "idle": 100.0}, None, None),
        ({"user": 10.0, "steal": 1.0, "idle": 10.0}, None, None),
    ],
)
def test_shares_lie_between_0_and_1(
    tmp_path: Path, after: dict[str, float], others: float | None, stolen: float | None
) -> None:
    found = watched(tmp_path, {"user": 100.0, "steal": 10.0, "idle": 100.0}, after)
    assert found.others == pytest.approx(others, abs=0.06)
    assert found.stolen == pytest.approx(stolen, abs=0.06)
    for share in (found.others, found.stolen):
        assert share is None or 0 <= share <= 1


@pytest.mark.parametrize("text", [None, "", "intr 1 2 3\n"])
def test_a_system_that_does_not_tell_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    watch = Watch(tmp_path, tmp_path)
    time.sleep(1.5 * conditions.SHORTEST)
    found = watch.conditions()
    assert (found.others, found.stolen, found.clock_mhz) == (None, None, None)
    assert found.yardstick_ms > 0


def test_too_short_a_time_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "SHORTEST", 1000.0)
    write_stat(tmp_path)
    watch = Watch(tmp_path, tmp_path)
    write_stat(tmp_path, user=10.0, idle=10.0)
    assert watch.conditions().others is None


def test_the_clock_is_the_fastest_cores(tmp_path: Path) -> None:
    for core, khz in enumerate((1_800_000, 3_400_000, 800_000)):
        folder = tmp_path / "devices" / "system" / "cpu" / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2499.998\ncpu MHz\t\t: 2501.5\n")
    assert clock_mhz(tmp_path, tmp_path) == pytest.approx(3400.0)
    assert clock_mhz(tmp_path, tmp_path / "none") == pytest.approx(2501.5)
    assert clock_mhz(tmp_path / "none", tmp_path / "none") is None


def test_the_yardstick_is_the_work_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    few = yardstick_ms()
    monkeypatch.setattr(conditions, "STEPS", 10 * conditions.STEPS)
    assert yardstick_ms() > 2 * few  # ten times the work, whatever else goes on


def turns(
    *ms: float, rounds: int = 5, repetitions: int = 2, what: Sequence[Conditions] = ()
) -> tuple[Turn, ...]:
    """Rounds of requests that take these times in turns."""
    times = ms or (20.0,)
    return tuple(
        turn(
            number,
            [
                sample(times[(number * repetitions + index) % len(times)])
                for index in range(repetitions)
            ],
            conditions=what[number % len(what)] if what else CONDITIONS,
        )
        for number in range(rounds)
    )


def warned(found: Sequence[Turn], *, effort: Effort = EFFORT, **machine: Any) -> tuple[str, ...]:
    return warnings_of(found, replace(ENVIRONMENT, **machine), effort)


def test_a_quiet_machine_warns_of_nothing() -> None:
    assert warned(turns()) == ()
    assert warned(turns(20.0, 20.5, 19.5)) == ()


def test_what_the_system_does_not_tell_warns_of_nothing() -> None:
    unknown = replace(CONDITIONS, others=None, stolen=None, clock_mhz=None)
    assert warned(turns(what=[unknown]), governor=None) == ()


def test_no_turns_have_no_warnings() -> None:
    assert warned(()) == ()


def but(**changes: Any) -> Conditions:
    return replace(CONDITIONS, **changes)


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ([but(others=0.23)], ("other processes used 23 % of the CPU", "--rounds")),
        ([but(others=0.60), but(others=None)], ("other processes used 60 % of the CPU",)),
        ([but(stolen=0.05)], ("the hypervisor took 5 % of the CPU",)),
        ([but(yardstick_ms=5.0), but(yardstick_ms=6.0)], ("took 5.00 ms", "6.00 ms")),
        ([but(clock_mhz=3400.0), but(clock_mhz=2100.0)], ("2,100 MHz", "3,400 MHz")),
    ],
)
def test_each_disturbance_is_one_sentence_with_its_figure(
    what: list[Conditions], parts: tuple[str, ...]
) -> None:
    (sentence,) = warned(turns(what=what))
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    "what",
    [
        # one busy round of five is what medians are for
        [but(others=0.3), but(others=0.0), but(others=0.0), but(others=0.0), but(others=0.0)],
        [but(stolen=0.01)],
        [but(yardstick_ms=5.0), but(yardstick_ms=5.4)],
        [but(clock_mhz=3400.0), but(clock_mhz=3300.0)],
    ],
)
def test_small_disturbances_are_none(what: list[Conditions]) -> None:
    assert warned(turns(what=what)) == ()


@pytest.mark.parametrize("names", ["powersave", "schedutil", "performance, schedutil"])
def test_a_governor_that_changes_clocks_is_named(names: str) -> None:
    (sentence,) = warned(turns(), governor=names)
    assert names in sentence
    assert "performance" in sentence


def test_a_governor_that_does_not_is_none() -> None:
    assert warned(turns(), governor="performance") == ()


@pytest.mark.parametrize(
    ("rounds", "repetitions", "parts"),
    [
        (1, 10, ["1 round cannot", "--rounds 5"]),
        (4, 3, ["4 rounds cannot", "--rounds 5"]),
        (5, 1, ["5 repetitions cannot", "-r 10"]),
    ],
)
def test_too_few_measurements_say_what_to_ask_for(
    rounds: int, repetitions: int, parts: list[str]
) -> None:
    effort = replace(EFFORT, rounds=rounds, repetitions=rounds * repetitions)
    (sentence,) = warned(turns(rounds=rounds, repetitions=repetitions), effort=effort)
    assert all(part in sentence for part in parts), sentence


def test_a_single_request_has_both_warnings_and_no_spread() -> None:
    effort = replace(EFFORT, rounds=1, repetitions=1)
    found = warned(turns(rounds=1, repetitions=1), effort=effort)
    assert len(found) == 2
    assert "1 repetition " in found[1]


def test_an_interrupted_row_says_how_far_it_came() -> None:
    found = warned(turns(rounds=3, repetitions=4), effort=replace(EFFORT, repetitions=20))
    assert len(found) == 1
    assert "3 of 5 rounds" in found[0]


def test_a_wide_spread_is_said_with_its_size() -> None:
    # quarters at 20 and 30, median 25: the middle half is 10 wide
    (sentence,) = warned(turns(20.0, 30.0, rounds=6))
    assert "40 %" in sentence


def test_lines_of_a_text_may_take_what_they_take() -> None:
    found = turns(20.0, 30.0, rounds=6)
    longer = replace(found[0], samples=(replace(found[0].samples[0], new_tokens=9),))
    assert warned((longer, *found[1:], *found[:1])) == ()


@given(
    others=st.one_of(st.none(), st.floats(0, 1)),
    stolen=st.one_of(st.none(), st.floats(0, 1)),
    mhz=st.one_of(st.none(), st.floats(1, 1e4)),
    yardsticks=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
    ms=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5),
    rounds=st.integers(1, 6),
)
def test_every_warning_is_one_line(
    others: float | None,
    stolen: float | None,
    mhz: float | None,
    yardsticks: list[float],
    ms: list[float],
    rounds: int,
) -> None:
    what = [Conditions(others, stolen, mhz, yardstick) for yardstick in yardsticks]
    found = warned(turns(*ms, rounds=rounds, what=what), governor="ondemand")
    assert len(set(found)) == len(found)
    for sentence in found:
        assert "\n" not in sentence
        assert not sentence.endswith(".")
