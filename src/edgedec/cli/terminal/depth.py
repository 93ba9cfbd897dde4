"""What depth policies did, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from edgedec.export.depth_table import Measured
    from edgedec.runtime.comparison import SideBySide

NOTHING = "-"


def stats_table(beside: SideBySide) -> list[str]:
    """What `edgedec run --stats` shows; lines of what was not measured are left out."""
    facts, ours = beside.facts(), beside.ours
    rows = [["depth", facts["depth"]], ["tokens", f"{ours.tokens:,} in {ours.steps:,} steps"]]
    if facts["mean_layers"] is not None:
        rows.append(
            ["layers", f"{facts['mean_layers']:.2f} per token of {facts['decoder_layers']}"]
        )
    if ours.exits:
        total = sum(ours.exits.values())
        shares = (f"{layer}: {count / total:.1%}" for layer, count in sorted(ours.exits.items()))
        rows.append(["exits", "after layer " + ", ".join(shares)])
    if facts["drafted"] is not None:
        rows.append(
            ["drafts", f"{ours.drafted:,}, {ours.accepted:,} accepted ({facts['acceptance']:.1%})"]
        )
    if facts["agreement"] is not None:
        equal = f"{facts['agreement']:.2%} of tokens, {facts['exact_match']:.2%} of inputs"
        rows.append(["as full depth", equal])
    if facts["ms_per_token"] is not None:
        speed = f"{facts['ms_per_token']:.3f}"
        if facts["speedup"] is not None:
            full = f"{facts['full_ms_per_token']:.3f}"
            speed += f", at full depth {full}: {facts['speedup']:.2f} times as fast"
        rows.append(["ms per token", speed])
    return columns(rows)


def calibration_table(points: list[Measured], full_layers: int) -> list[str]:
    """All points of `edgedec calibrate-depth`; those on the front have a star."""
    head = ["", "depth", "quality", f"layers of {full_layers}", "ms per token", "x", "accepted"]
    rows = [head]
    for measured in points:
        point = measured.point
        held = NOTHING if measured.acceptance is None else f"{measured.acceptance:.1%}"
        rows.append(
            [
                "*" if measured.on_front else "",
                point.depth,
                f"{point.quality:.4f}",
                f"{point.layers:.2f}",
                f"{point.milliseconds:.3f}",
                f"{point.speedup:.2f}",
                held,
            ]
        )
    return columns(rows, right=frozenset(range(2, len(head))))
