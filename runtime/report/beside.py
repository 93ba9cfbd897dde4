"""Bundles and depth policies of one profile beside the first of them, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.runtime.profiling.paired import Ratio
from edgedec.runtime.profiling.ratios import Against, first_label, ratios
from edgedec.runtime.profiling.record import Configuration, Profile
from edgedec.runtime.report.markup import printable
from edgedec.runtime.report.settings import LABELS, TEST, settings
from edgedec.runtime.report.table import NOTHING, Column, Table, factor_out, words

FASTER = "reference / row, above 1 is faster (of memory: smaller)"
"""Direction of ratios between rows of one profile; `change.SLOWER` is that of `--compare`."""
RANKS = {"ttft_ms": 1, "tpot_ms": 2, "e2e_ms": None, "peak_rss_mb": 0}
"""Metric -> how soon its column goes where there is no room."""


def beside(profile: Profile) -> Table | None:
    """Ratios against the first bundle and policy; None where there is no other of the same work."""
    label = first_label(profile)
    found = ratios(profile, label)
    if not found:
        return None
    identity = settings([one.other for one in found])
    identity.insert(1, words("against", [_reference(one.reference, one.other) for one in found]))
    columns, same = factor_out(identity, TEST)
    columns += [
        _column(metric, rank, found) for metric, rank in RANKS.items() if _any(metric, found)
    ]
    columns.append(words("in words", [_in_words(one.ratios.get("e2e_ms")) for one in found]))
    name = printable(label)
    every = [ratio for one in found for ratio in one.ratios.values()]
    above = (*filter(None, [same]), f"Time and peak memory of {name} by those of the row.")
    return Table(
        title=f"Ratios against {name}: {FASTER}",
        facts=(*above, f"Medians over rounds and, in brackets, {coverage(every)}."),
        brief=(*above, "Medians over rounds."),
        columns=tuple(columns),
    )


def coverage(found: Sequence[Ratio]) -> str:
    """What the intervals of these ratios are, in words."""
    least = min((ratio.coverage for ratio in found), default=0.0)
    return (
        f"an interval that contains the true median with a probability of {least:.1%} "
        f"({(1 + least) / 2:.1%} for each of its ends)"
    )


def interval_of(ratio: Ratio) -> str:
    """``1.17 to 1.23``."""
    return f"{ratio.low:.3f} to {ratio.high:.3f}"


def _any(metric: str, found: Sequence[Against]) -> bool:
    return any(metric in one.ratios for one in found)


def _column(metric: str, rank: int | None, found: Sequence[Against]) -> Column:
    known = [one.ratios.get(metric) for one in found]
    short = [NOTHING if one is None else f"{one.median:.2f}" for one in known]
    full = [
        text if one is None else f"{text} [{one.low:.2f}, {one.high:.2f}]"
        for text, one in zip(short, known, strict=True)
    ]
    head = LABELS[metric].split()[0]
    return Column(
        head, tuple(full), right=True, rank=rank, short=tuple(short), detail="the interval"
    )


def _reference(reference: Configuration, other: Configuration) -> str:
    """Its bundle, and settings that a baseline does not have."""
    parts = [reference.bundle]
    if reference.depth != other.depth:
        parts.append(reference.depth)
    if reference.device != other.device:
        parts.append(reference.device)
    return " ".join(parts)


def _in_words(ratio: Ratio | None) -> str:
    if ratio is None:
        return NOTHING
    if not ratio.trusted:
        return "too few rounds to tell"
    if ratio.low > 1:
        return f"{ratio.median:.2f} times as fast"
    if ratio.high < 1:
        return f"takes {1 / ratio.median:.2f} times as long"
    return "no clear difference"
