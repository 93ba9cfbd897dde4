"""How many times as fast: bundles and depth policies of one profile against the first of them."""

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


def first_label(profile: Profile) -> str:
    """The bundle that others are compared with; empty where there are no rows."""
    return next((row.configuration.bundle for row in profile.rows), "")


def ratios(profile: Profile, reference: str) -> tuple[Against, ...]:
    """Every row of another bundle, or of another depth policy, in the order of the profile.

    The rounds of all rows take turns, so that what disturbs the machine disturbs both. Another
    bundle's row stands beside the reference's with the same settings; a baseline's, which knows
    neither devices nor depth policies, beside all that differ in nothing else. The reference's own
    rows stand beside that with its first depth policy.

    Args:
        profile: of several bundles or policies.
        reference: label of the bundle that others are compared with.
    """
    beside: dict[Configuration, list[Row]] = {}
    for row in profile.rows:
        if row.configuration.bundle == reference and row.error is None:
            beside.setdefault(_inputs(row.configuration), []).append(row)
    depths = [row.configuration.depth for row in profile.rows]
    return tuple(
        Against(ours.configuration, theirs.configuration, found)
        for theirs in profile.rows
        if theirs.error is None
        for ours in beside.get(_inputs(theirs.configuration), ())
        if _beside(ours.configuration, theirs.configuration, depths[0])
        and (found := dict(_ratios(ours, theirs)))
    )


def _inputs(what: Configuration) -> Configuration:
    """What rows must share to be compared at all."""
    return replace(what, bundle="", device="", depth="", program="edgedec")


def _beside(ours: Configuration, theirs: Configuration, depth: str) -> bool:
    """Whether a row of the reference is the one for another row, given its first depth policy."""
    if ours.bundle == theirs.bundle:
        return ours.device == theirs.device and ours.depth == depth != theirs.depth
    same = (ours.device, ours.depth) == (theirs.device, theirs.depth)
    return same or ours.program != theirs.program


def _ratios(ours: Row, theirs: Row) -> Iterator[tuple[str, Ratio]]:
    for metric in COMPARED:
        ratio = paired(over_rounds(by_round(theirs, metric)), over_rounds(by_round(ours, metric)))
        if ratio is not None:
            yield metric, ratio
