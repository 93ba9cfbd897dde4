"""Has it become slower? Two profiles beside each other, with a verdict that noise can forbid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from edgedec.runtime.profiling.paired import Ratio, paired, rounds_needed
from edgedec.runtime.profiling.record import Configuration, Profile, Row, Turn
from edgedec.runtime.profiling.rounds import COMPARED, TIMES, by_round, over_rounds
from edgedec.runtime.profiling.summary import median

Verdict = Literal["faster", "same", "slower", "undecided"]
Reason = Literal["noise", "few rounds", "machine"]

OTHER_MACHINE = 1.03
"""By how much the yardstick must have changed for the machine to count as another one."""
ENVIRONMENT = ("cpu", "machine", "cores", "instruction_set", "governor", "boost", "system")
EFFORT = ("warmup", "fresh", "seed")


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
        rows: that both have, in the order of the new one.
        machine: time of the yardstick, new to old, by round; None if the rounds are not shared.
        notes: what makes the profiles differ or incomparable; sentences.
    """

    fail_over: float
    old_date: str
    new_date: str
    rows: tuple[ComparedRow, ...]
    machine: Ratio | None
    notes: tuple[str, ...]

    @property
    def changes(self) -> Iterator[tuple[ComparedRow, Change]]:
        """All of them."""
        return ((row, change) for row in self.rows for change in row.changes)

    @property
    def verdict(self) -> Verdict:
        """Of all: the worst of them; ``faster`` if one is and none is slower or undecided."""
        verdicts = {change.verdict for _, change in self.changes}
        if not verdicts:
            return "undecided"
        order: tuple[Verdict, ...] = ("slower", "undecided", "faster", "same")
        return next(verdict for verdict in order if verdict in verdicts)

    @property
    def slower(self) -> bool:
        """Whether anything grew by more than is allowed."""
        return self.verdict == "slower"


def judge(ratio: Ratio, fail_over: float) -> Verdict:
    """A ratio of times (new to old) against 1 + `fail_over`.

    ``slower``: the interval lies above. ``faster``: it lies below 1 / (1 + `fail_over`).
    ``same``: anything else that is not above. Each is wrong at most one time in twenty;
    ``undecided`` where that cannot be said.
    """
    limit = 1 + fail_over
    if not ratio.trusted or ratio.low <= limit < ratio.high:
        return "undecided"
    if ratio.low > limit:
        return "slower"
    return "faster" if ratio.high < 1 / limit else "same"


def compare(old: Profile, new: Profile, fail_over: float) -> Comparison:
    """Compare configurations that both profiles have.

    Where each has one bundle, its label does not matter; otherwise labels must be the same.

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
    machine = _machine(pairs)
    foreign = machine is not None and other_machine(machine)
    rows = tuple(
        ComparedRow(
            then.configuration, now.configuration, tuple(_changes(then, now, fail_over, foreign))
        )
        for then, now in pairs
    )
    notes = [*_differences(old, new), *_unmatched(before, after)]
    return Comparison(
        fail_over, old.environment.date, new.environment.date, rows, machine, tuple(notes)
    )


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
        verdict = verdict if scaled == verdict else "same"
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


def _differences(old: Profile, new: Profile) -> Iterator[str]:
    then, now = asdict(old.environment), asdict(new.environment)
    for name in ENVIRONMENT:
        if then[name] != now[name]:
            yield f"Another machine: {name} was {_said(then[name])} and is {_said(now[name])}."
    before, after = old.environment.versions, new.environment.versions
    changed = [
        f"{name} was {before.get(name, 'not there')} and is {after.get(name, 'not there')}"
        for name in sorted(before.keys() | after.keys())
        if name != "edgedec" and before.get(name) != after.get(name)
    ]
    if changed:
        yield f"Other versions: {', '.join(changed)}."
    then, now = asdict(old.effort), asdict(new.effort)
    for name in EFFORT:
        if then[name] != now[name]:
            yield f"Measured otherwise: {name} was {_said(then[name])} and is {_said(now[name])}."
    if not old.complete:
        yield "The old profile was interrupted."


def _said(value: object) -> str:
    return "unknown" if value is None else str(value)


def _unmatched(
    before: Mapping[Configuration, Row], after: Mapping[Configuration, Row]
) -> Iterator[str]:
    if not before.keys() & after.keys():
        yield "No configuration was measured in both profiles: there is nothing to compare."
        return
    for ours, theirs, which in ((before, after, "old"), (after, before, "new")):
        only = len(ours.keys() - theirs.keys())
        if only:
            yield f"{only} of {len(ours)} rows of the {which} profile are not in the other one."
        failed = sum(ours[key].error is not None for key in ours.keys() & theirs.keys())
        if failed:
            yield f"{failed} of {len(ours)} rows of the {which} profile failed."
