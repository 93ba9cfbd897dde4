"""What else went on while something was measured, and what that means for a row of a profile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedec.runtime.profiling.record import Conditions, Effort, Environment, Turn
from edgedec.runtime.profiling.summary import percentile
from edgedec.runtime.profiling.system import PROC, SYS, read, read_number

SHORTEST = 0.03
"""Seconds. The system counts in hundredths: less than a few of them say nothing."""
STEPS = 20_000
"""Of the yardstick: about 3 ms."""
TRIES = 5

BUSY = 0.10
STOLEN = 0.02
VARYING = 0.10
SPREAD = 0.10
ROUNDS = 5
REPETITIONS = 10
STEADY = {"performance", "userspace"}
"""Governors that leave the clock alone."""


class Watch:
    """Watches the machine from now on.

    Args:
        proc, sys: where the system tells.
    """

    def __init__(self, proc: Path = PROC, sys: Path = SYS) -> None:
        self._proc = proc
        self._sys = sys
        self._began = _times(proc)

    def conditions(self) -> Conditions:
        """What went on since then."""
        others, stolen = _shares(self._began, _times(self._proc))
        return Conditions(
            others=others,
            stolen=stolen,
            clock_mhz=clock_mhz(self._proc, self._sys),
            yardstick_ms=yardstick_ms(),
        )


@dataclass(frozen=True)
class _Times:
    """Seconds since the machine started: of all cores, busy, stolen; of this process; the clock."""

    total: float
    busy: float
    stolen: float
    own: float
    now: float


def _times(proc: Path) -> _Times | None:
    """None where the system does not tell."""
    text = read(proc / "stat")
    if text is None or not text.startswith("cpu "):
        return None
    # man 5 proc; guests' time comes after these, and user and nice contain it.
    ticks = [int(word) for word in text.splitlines()[0].split()[1:9]]
    user, nice, system, idle, waiting, interrupts, soft, stolen = ticks + [0] * (8 - len(ticks))
    busy = user + nice + system + interrupts + soft
    tick = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    children = os.times()
    return _Times(
        total=(busy + idle + waiting + stolen) / tick,
        busy=busy / tick,
        stolen=stolen / tick,
        own=time.process_time() + children.children_user + children.children_system,
        now=time.monotonic(),
    )


def _shares(began: _Times | None, ended: _Times | None) -> tuple[float | None, float | None]:
    """Of other processes and of the hypervisor, of all cores' time in between."""
    if began is None or ended is None or ended.now - began.now < SHORTEST:
        return None, None
    total = ended.total - began.total
    if total <= 0:
        return None, None
    others = ended.busy - began.busy - (ended.own - began.own)
    stolen = ended.stolen - began.stolen
    # Ticks and clocks do not agree to the last hundredth, and stolen time has run backwards before.
    return min(max(others / total, 0.0), 1.0), min(max(stolen / total, 0.0), 1.0)


def clock_mhz(proc: Path = PROC, sys: Path = SYS) -> float | None:
    """Of the fastest core, now; None where the system does not tell."""
    cores = (sys / "devices" / "system" / "cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    known = [khz / 1e3 for path in cores if (khz := read_number(path)) is not None]
    if not known:
        lines = (read(proc / "cpuinfo") or "").splitlines()
        known = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return max(known, default=None)


def yardstick_ms() -> float:
    """Milliseconds of a fixed piece of work on one thread: the best of several tries.

    It compares a machine with itself, by the same Python.
    """
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        value = 1
        for _ in range(STEPS):
            value = (value * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        best = min(best, time.perf_counter() - began)
    return best * 1e3


def warnings_of(turns: Sequence[Turn], environment: Environment, effort: Effort) -> tuple[str, ...]:
    """Why a row deserves less trust: a sentence for each reason.

    Args:
        turns: of the row.
        environment: the machine that it was measured on.
        effort: how much was to be measured.
    """
    if not turns:
        return ()
    found = (rule(turns, environment, effort) for rule in RULES)
    return tuple(sentence for sentence in found if sentence is not None)


def _busy(turns: Sequence[Turn], *_: object) -> str | None:
    share = _mean([turn.conditions.others for turn in turns])
    if share is None or share <= BUSY:
        return None
    return (
        f"other processes used {_percent(share)} of the CPU while this was measured: close them, "
        "or raise --rounds"
    )


def _stolen(turns: Sequence[Turn], *_: object) -> str | None:
    share = _mean([turn.conditions.stolen for turn in turns])
    if share is None or share <= STOLEN:
        return None
    return (
        f"the hypervisor took {_percent(share)} of the CPU away while this was measured: raise "
        "--rounds, or use a machine of your own"
    )


def _governor(_: Sequence[Turn], environment: Environment, __: Effort) -> str | None:
    names = environment.governor
    if names is None or set(names.split(", ")) <= STEADY:
        return None
    return (
        f"the frequency governor is {names}, so clocks change with the load: set performance "
        "(cpupower frequency-set -g performance)"
    )


def _yardsticks(turns: Sequence[Turn], *_: object) -> str | None:
    known = [turn.conditions.yardstick_ms for turn in turns]
    if max(known) <= (1 + VARYING) * min(known):
        return None
    return (
        f"a fixed piece of work took {min(known):.2f} ms in one round and {max(known):.2f} ms in "
        "another: the machine's speed changed, so wait until it is quiet, or raise --rounds"
    )


def _clocks(turns: Sequence[Turn], *_: object) -> str | None:
    known = [mhz for turn in turns if (mhz := turn.conditions.clock_mhz) is not None]
    if not known or max(known) <= (1 + VARYING) * min(known):
        return None
    return (
        f"the fastest core's clock was {min(known):,.0f} MHz after one round and "
        f"{max(known):,.0f} MHz after another: fix it, or let the machine cool"
    )


def _rounds(turns: Sequence[Turn], _: Environment, effort: Effort) -> str | None:
    planned = min(effort.rounds, effort.repetitions)
    if len(turns) >= ROUNDS:
        return None
    if planned > len(turns):
        return (
            f"only {len(turns)} of {_count(planned, 'round')} were measured: let it run to its end"
        )
    return f"{_count(len(turns), 'round')} cannot show noise: use --rounds {ROUNDS} or more"


def _repetitions(turns: Sequence[Turn], *_: object) -> str | None:
    count = sum(len(turn.samples) for turn in turns)
    if count >= REPETITIONS:
        return None
    return f"{_count(count, 'repetition')} cannot show percentiles: use -r {REPETITIONS} or more"


def _spread(turns: Sequence[Turn], *_: object) -> str | None:
    samples = [one for turn in turns for one in turn.samples]
    # Lines of a text have every length, and take the time that it takes.
    if len({(one.inputs, one.source_tokens, one.new_tokens) for one in samples}) != 1:
        return None
    times = [one.e2e_ms for one in samples]
    spread = (percentile(times, 75) - percentile(times, 25)) / percentile(times, 50)
    if spread <= SPREAD:
        return None
    return (
        f"the middle half of the requests spreads over {_percent(spread)} of the median: use a "
        "quiet machine, or raise -r"
    )


Rule = Callable[[Sequence[Turn], Environment, Effort], "str | None"]
RULES: tuple[Rule, ...] = (
    _busy,
    _stolen,
    _governor,
    _yardsticks,
    _clocks,
    _rounds,
    _repetitions,
    _spread,
)


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
