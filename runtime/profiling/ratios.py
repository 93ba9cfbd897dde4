"""How many times as fast: bundles of one profile against the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgedec.runtime.profiling.paired import Ratio, paired
from edgedec.runtime.profiling.record import Configuration, Profile, Row
from edgedec.runtime.profiling.rounds import COMPARED, by_round, over_rounds


@dataclass(frozen=True)
class Against:
    """A row beside the reference's row with the same settings.

    Attributes:
        reference, other: what was measured.
        ratios: metric -> the reference's divided by the other's, of the same rounds: above 1, the
            other is faster or smaller.
    """

    reference: Configuration
    other: Configuration
    ratios: dict[str, Ratio]


def first_label(profile: Profile) -> str | None:
    """The bundle that others are compared with; None if there are no others."""
    labels = list(dict.fromkeys(row.configuration.bundle for row in profile.rows))
    return labels[0] if len(labels) > 1 else None


def ratios(profile: Profile, reference: str) -> tuple[Against, ...]:
    """Every row of another bundle beside the reference's, in the order of the profile.

    The rounds of all rows take turns, so that what disturbs the machine disturbs both. A baseline,
    which knows neither devices nor depth policies, stands beside all rows of the reference that
    differ in nothing else.

    Args:
        profile: of several bundles.
        reference: label of the bundle that others are compared with.
    """
    beside: dict[Configuration, list[Row]] = {}
    for row in profile.rows:
        if row.configuration.bundle == reference and row.error is None:
            beside.setdefault(_inputs(row.configuration), []).append(row)
    return tuple(
        Against(ours.configuration, theirs.configuration, found)
        for theirs in profile.rows
        if theirs.configuration.bundle != reference and theirs.error is None
        for ours in beside.get(_inputs(theirs.configuration), ())
        if _alike(ours.configuration, theirs.configuration)
        and (found := dict(_ratios(ours, theirs)))
    )


def _inputs(what: Configuration) -> Configuration:
    """What rows must share to be compared at all."""
    return replace(what, bundle="", device="", depth="", program="edgedec")


def _alike(ours: Configuration, theirs: Configuration) -> bool:
    """Whether the rest is the same too, or the other is a baseline."""
    same = (ours.device, ours.depth) == (theirs.device, theirs.depth)
    return same or ours.program != theirs.program


def _ratios(ours: Row, theirs: Row) -> Iterator[tuple[str, Ratio]]:
    for metric in COMPARED:
        ratio = paired(over_rounds(by_round(theirs, metric)), over_rounds(by_round(ours, metric)))
        if ratio is not None:
            yield metric, ratio
