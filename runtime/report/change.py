"""What changed since an earlier profile: a table, and a verdict in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.comparison import (
    Change,
    ComparedRow,
    Comparison,
    other_machine,
)
from edgedec.runtime.profiling.paired import MOST_ROUNDS
from edgedec.runtime.profiling.rounds import MEMORY
from edgedec.runtime.report.beside import coverage, interval_of
from edgedec.runtime.report.figures import counted
from edgedec.runtime.report.markup import printable
from edgedec.runtime.report.notes import merged
from edgedec.runtime.report.settings import LABELS, TEST, settings, test_of
from edgedec.runtime.report.table import Column, Table, decimals, factor_out, words

SLOWER = "new / old, above 1 is slower (of memory: larger)"
"""Direction of ratios to an earlier profile."""
OF_MEMORY = {"slower": "more", "not slower": "not more", "faster": "less"}
REASONS = {"noise": "noise", "few rounds": "few rounds", "machine": "other machine"}


def change_table(comparison: Comparison) -> Table | None:
    """Every metric of every row, then and now; None if there is nothing to compare."""
    found = list(comparison.changes)
    if not found:
        return None
    columns, same = factor_out(settings([row.new for row, _ in found]), TEST)
    limit = 1 + comparison.fail_over
    columns += [
        words("metric", [LABELS[change.metric] for _, change in found]),
        _figures("old", [change.old for _, change in found], rank=0),
        _figures("new", [change.new for _, change in found], rank=1),
        Column("ratio", tuple(f"{change.ratio.median:.3f}" for _, change in found), right=True),
        Column("interval", tuple(interval_of(change.ratio) for _, change in found), rank=2),
        words("verdict", [in_words(change) for _, change in found]),
    ]
    rule = (
        f"Slower where the interval lies above {limit:g}, faster where it lies below "
        f"{1 / limit:.3f}, undecided where it contains {limit:g}, else not slower."
    )
    return Table(
        title=f"Against the profile of {printable(comparison.old_date)}: {SLOWER}",
        facts=(
            *filter(None, [same]),
            f"Median over rounds, paired by number, and {coverage([c.ratio for _, c in found])}.",
            rule,
        ),
        columns=tuple(columns),
        remarks=tuple(remarks(comparison)),
    )


def in_words(change: Change) -> str:
    """The verdict on a metric, with the reason and a way out where there is none."""
    if change.reason is None:
        return OF_MEMORY[change.verdict] if change.metric == MEMORY else change.verdict
    text = f"undecided: {REASONS[change.reason]}"
    if change.rounds is not None:
        return f"{text}, try {change.rounds} rounds"
    return f"{text}, more than {MOST_ROUNDS} rounds" if change.reason == "noise" else text


def verdict(comparison: Comparison) -> str:
    """The overall verdict, in one line."""
    found = list(comparison.changes)
    allowed = f"{100 * comparison.fail_over:g}%"
    grown = [(row, change) for row, change in found if change.verdict == "slower"]
    if not found:
        return "Verdict: undecided. Nothing could be compared."
    if grown:
        worst = max(grown, key=lambda one: one[1].ratio.low)
        more = f", and {len(grown) - 1:,} more" if len(grown) > 1 else ""
        return f"Verdict: slower. {_grown(*worst)}{more}; allowed are {allowed}."
    open_ = [change for _, change in found if change.verdict == "undecided"]
    if open_:
        of = f"{len(open_):,} of {counted(len(found), 'figure')}"
        return f"Verdict: undecided for {of}. {_advice(open_)}"
    if comparison.skipped:
        rows = counted(comparison.skipped, "row")
        return f"Verdict: undecided. {rows} could not be compared; nothing else grew too much."
    best = sum(change.verdict == "faster" for _, change in found)
    if best:
        return (
            f"Verdict: faster. {best:,} of {counted(len(found), 'figure')} fell, and none grew by "
            f"more than {allowed}."
        )
    return (
        f"Verdict: not slower. None of {counted(len(found), 'figure')} grew by more than {allowed}."
    )


def _grown(row: ComparedRow, change: Change) -> str:
    ratio, name = change.ratio, printable(f"{row.new.bundle} {test_of(row.new)}")
    return (
        f"{LABELS[change.metric]} of {name} grew by {_percent(ratio.median)} "
        f"({_percent(ratio.low)} to {_percent(ratio.high)})"
    )


def _percent(ratio: float) -> str:
    return f"{ratio - 1:.1%}"


def _advice(undecided: Sequence[Change]) -> str:
    if any(change.reason == "machine" for change in undecided):
        return "The machine itself has changed: measure the old bundle again."
    rounds = [change.rounds for change in undecided if change.rounds is not None]
    noisy = f"too noisy here: more than {MOST_ROUNDS} rounds would be needed."
    if not rounds:
        return noisy.capitalize()
    advice = f"Measure both with --rounds {max(rounds)} -r {max(rounds)} or more."
    others = len(undecided) - len(rounds)
    return f"{advice} For {others:,} of them it is {noisy}" if others else advice


def remarks(comparison: Comparison) -> list[str]:
    """Its notes, those that differ in figures only as one, and whether the machine has changed."""
    found = merged([printable(note) for note in comparison.notes])
    machine = comparison.machine
    if machine is not None and other_machine(machine):
        way = "longer" if machine.median > 1 else "shorter"
        found.append(
            f"The machine has changed: a fixed piece of work took {machine.median:.2f} times as "
            f"long as then ({interval_of(machine)}), so times are {way} for every bundle. Verdicts "
            "on times are those that hold in its units too."
        )
    return found


def _figures(name: str, values: Sequence[float], rank: int) -> Column:
    cells = tuple(f"{value:,.{decimals([value])}f}" for value in values)
    return Column(name, cells, right=True, rank=rank)
