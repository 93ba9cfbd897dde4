"""What must be said of two profiles that are compared: sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from edgedec.runtime.profiling.record import Configuration, Profile, Row

ENVIRONMENT = ("cpu", "machine", "cores", "instruction_set", "governor", "boost", "system")
EFFORT = ("rounds", "repetitions", "warmup", "fresh", "seed")


def of_profiles(old: Profile, new: Profile) -> Iterator[str]:
    """Between the machines, the versions and the effort."""
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


def unmatched(
    before: Mapping[Configuration, Row], after: Mapping[Configuration, Row]
) -> Iterator[str]:
    """Rows that only one profile has, or that failed in one."""
    if not before.keys() & after.keys():
        yield "No configuration was measured in both profiles: there is nothing to compare."
        return
    for ours, theirs, which in ((before, after, "old"), (after, before, "new")):
        only = len(ours.keys() - theirs.keys())
        if only:
            found = _rows(only, len(ours))
            yield f"{found} of the {which} profile {_are(only)} not in the other one."
        failed = sum(ours[key].error is not None for key in ours.keys() & theirs.keys())
        if failed:
            yield f"{_rows(failed, len(ours))} of the {which} profile failed."


def incomparable(texts: int, rounds: int) -> Iterator[str]:
    """So many rows have other texts; so many have no round in common."""
    if texts:
        yield (
            f"{_rows(texts)} with text {_are(texts)} not compared: the lines are not known to be "
            "those of the old profile. Measure both with the same file."
        )
    if rounds:
        yield f"{_rows(rounds)} {_are(rounds)} not compared: no round is in both profiles."


def left_out(pairs: Sequence[tuple[Row, Row]]) -> Iterator[str]:
    """Rounds that only one profile has are no part of any ratio."""
    sets = [(_rounds(then), _rounds(now)) for then, now in pairs]
    counts = {(len(old & new), len(old), len(new)) for old, new in sets if old != new}
    for shared, before, after in sorted(counts):
        yield (
            f"Only rounds that both have are compared: {shared} of {before} of the old profile "
            f"and of {after} of the new one."
        )


def _rounds(row: Row) -> set[int]:
    return {turn.round for turn in row.turns}


def warnings(compared: Iterable[tuple[Row, Row, bool]]) -> Iterator[str]:
    """Those of the old profile, and of the new one where there is no verdict; each once.

    Args:
        compared: rows then and now, and whether a verdict on them is open.
    """
    said: dict[str, None] = {}
    for then, now, open_ in compared:
        said.update(dict.fromkeys(f"Warning of the old profile: {text}." for text in then.warnings))
        if open_:
            new = (f"Warning of the new profile: {text}." for text in now.warnings)
            said.update(dict.fromkeys(new))
    return iter(said)


def _rows(count: int, of: int | None = None) -> str:
    """``1 row``, ``2 of 3 rows``."""
    number = f"{count:,}" if of is None else f"{count:,} of {of:,}"
    return f"{number} {'row' if (of or count) == 1 else 'rows'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
