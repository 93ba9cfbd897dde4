"""Has it become slower? Two profiles beside each other, with a verdict that noise can forbid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgedec.runtime.profiling import differences
from edgedec.runtime.profiling.paired import Ratio, paired, rounds_needed
from edgedec.runtime.profiling.record import Configuration, Profile, Row, Turn
from edgedec.runtime.profiling.rounds import COMPARED, TIMES, by_round, over_rounds
from edgedec.runtime.profiling.summary import median

Verdict = Literal["faster", "not slower", "slower", "undecided"]
Reason = Literal["noise", "few rounds", "machine"]

OTHER_MACHINE = 1.03
"""By how much the yardstick must have changed for the machine to count as another one."""


@dataclass(frozen=True)
class Change:
    """One metric of one row, then and now.

    Attributes:
        metric: its name; less is better.
        old, new: medians over all samples of the rounds that both have.
        ratio: new to old, by round.
        verdict: ``slower`` also means: takes more memory.
        reason: why there is no verdict; None if there is one.
        rounds: how many in both profiles would likely bring one; None if there is one, or if no
            reasonable number would.
    """

    metric: str
    old: float
    new: float
    ratio: Ratio
    verdict: Verdict
    reason: Reason | None
    rounds: int | None


@dataclass(frozen=True)
class ComparedRow:
    """A configuration that both profiles have.

    Attributes:
        old, new: it, as each has it; labels of the bundles may differ.
        changes: of every metric that both have.
    """

    old: Configuration
    new: Configuration
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Comparison:
    """A new profile against an old one.

    Attributes:
        fail_over: growth that counts, as a fraction of one.
        old_date, new_date: when they were measured.
        rows: that both have and that can be compared, in the order of the new one.
        skipped: rows that both have, but with other lines of text, or no round in common.
        machine: time of the yardstick, new to old, by round; None if the rounds are not shared.
        notes: what makes the profiles differ or incomparable; sentences.
    """

    fail_over: float
    old_date: str
    new_date: str
    rows: tuple[ComparedRow, ...]
    skipped: int
    machine: Ratio | None
    notes: tuple[str, ...]

    @property
    def changes(self) -> Iterator[tuple[ComparedRow, Change]]:
        """All of them."""
        return ((row, change) for row in self.rows for change in row.changes)

    @property
    def verdict(self) -> Verdict:
        """Of all: the worst of them; ``faster`` if one is and none is slower or undecided.

        What cannot be compared is undecided.
        """
        verdicts = {change.verdict for _, change in self.changes}
        if self.skipped or not verdicts:
            verdicts.add("undecided")
        order: tuple[Verdict, ...] = ("slower", "undecided", "faster", "not slower")
        return next(verdict for verdict in order if verdict in verdicts)

    @property
    def slower(self) -> bool:
        """Whether anything grew by more than is allowed."""
        return self.verdict == "slower"

    @property
    def undecided(self) -> bool:
        """Whether anything has no verdict: for noise, or because it could not be compared."""
        open_ = any(change.verdict == "undecided" for _, change in self.changes)
        return open_ or self.skipped > 0 or not any(row.changes for row in self.rows)


def judge(ratio: Ratio, fail_over: float) -> Verdict:
    """A ratio of times (new to old) against 1 + `fail_over`.

    ``slower``: the interval lies above. ``faster``: it lies below 1 / (1 + `fail_over`).
    ``not slower``: its upper end is not above; how much faster it may be is left open. Each is
    wrong at most one time in twenty; ``undecided`` where that cannot be said.
    """
    limit = 1 + fail_over
    if not ratio.trusted or ratio.low <= limit < ratio.high:
        return "undecided"
    if ratio.low > limit:
        return "slower"
    return "faster" if ratio.high < 1 / limit else "not slower"


def compare(old: Profile, new: Profile, fail_over: float) -> Comparison:
    """Compare configurations that both profiles have.

    Where each has one bundle, its label does not matter; otherwise labels must be the same. Rows
    with text are compared only if both profiles say that its lines are the same.

    Args:
        old: the reference.
        new: to be judged.
        fail_over: growth of a time or of memory that counts, as a fraction of one.
    """
    labels = not (_one_bundle(old) and _one_bundle(new))
    before, after = _by_key(old, labels=labels), _by_key(new, labels=labels)
    pairs = [
        (before[key], row)
        for key, row in after.items()
        if key in before and before[key].error is None and row.error is None
    ]
    alike = [pair for pair in pairs if _same_inputs(old, new, pair[1])]
    machine = _machine(alike)
    foreign = machine is not None and other_machine(machine)
    compared = [
        (then, now, changes)
        for then, now in alike
        if (changes := tuple(_changes(then, now, fail_over, foreign)))
    ]
    notes = [
        *differences.of_profiles(old, new),
        *differences.unmatched(before, after),
        *differences.incomparable(len(pairs) - len(alike), len(alike) - len(compared)),
        *differences.left_out(alike),
        *differences.warnings(
            (then, now, any(change.verdict == "undecided" for change in changes))
            for then, now, changes in compared
        ),
    ]
    return Comparison(
        fail_over=fail_over,
        old_date=old.environment.date,
        new_date=new.environment.date,
        rows=tuple(
            ComparedRow(then.configuration, now.configuration, changes)
            for then, now, changes in compared
        ),
        skipped=len(pairs) - len(compared),
        machine=machine,
        notes=tuple(notes),
    )


def _same_inputs(old: Profile, new: Profile, row: Row) -> bool:
    """Synthetic ones are, as far as the seed is; of text only its hash tells."""
    if row.configuration.text is None:
        return True
    then, now = old.effort.text_sha256, new.effort.text_sha256
    return then is not None and then == now


def _by_key(profile: Profile, *, labels: bool = True) -> dict[Configuration, Row]:
    found: dict[Configuration, Row] = {}
    for row in profile.rows:
        key = row.configuration if labels else replace(row.configuration, bundle="")
        found.setdefault(key, row)
    return found


def _one_bundle(profile: Profile) -> bool:
    """A baseline is a row of its own, with a label of its own."""
    labels = {(row.configuration.program, row.configuration.bundle) for row in profile.rows}
    return len(labels) == len({program for program, _ in labels})


def _changes(then: Row, now: Row, fail_over: float, foreign: bool) -> Iterator[Change]:
    for metric in COMPARED:
        old, new = by_round(then, metric), by_round(now, metric)
        ratio = paired(over_rounds(old), over_rounds(new))
        if ratio is None:
            continue
        machine = _machine([(then, now)]) if foreign and metric in TIMES else None
        verdict, reason = _verdict(ratio, fail_over, machine)
        shared = old.keys() & new.keys()
        yield Change(
            metric=metric,
            old=median(value for number in shared for value in old[number]),
            new=median(value for number in shared for value in new[number]),
            ratio=ratio,
            verdict=verdict,
            reason=reason,
            rounds=None if reason in {None, "machine"} else rounds_needed(ratio, 1 + fail_over),
        )


def _verdict(
    ratio: Ratio, fail_over: float, machine: Ratio | None
) -> tuple[Verdict, Reason | None]:
    """On another machine, it must also hold for times in units of the yardstick."""
    verdict = judge(ratio, fail_over)
    if verdict == "undecided":
        return verdict, "noise" if ratio.trusted else "few rounds"
    if machine is not None and len(machine.values) == len(ratio.values):
        scaled = judge(ratio / machine, fail_over)
        if scaled == "undecided" or (scaled == "slower") != (verdict == "slower"):
            return "undecided", "machine"
        verdict = verdict if scaled == verdict else "not slower"
    return verdict, None


def _machine(pairs: Sequence[tuple[Row, Row]]) -> Ratio | None:
    return paired(
        _yardsticks([turn for then, _ in pairs for turn in then.turns]),
        _yardsticks([turn for _, now in pairs for turn in now.turns]),
    )


def _yardsticks(turns: Sequence[Turn]) -> dict[int, float]:
    """Round -> time of the yardstick."""
    times: dict[int, list[float]] = {}
    for turn in turns:
        times.setdefault(turn.round, []).append(turn.conditions.yardstick_ms)
    return over_rounds(times)


def other_machine(machine: Ratio) -> bool:
    """Whether its yardstick says that the machine has become faster or slower."""
    return machine.trusted and (machine.low > OTHER_MACHINE or machine.high < 1 / OTHER_MACHINE)
