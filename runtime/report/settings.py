"""Configurations as columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgedec.runtime.profiling.record import BundleFacts, Configuration
from edgedec.runtime.report.table import NOTHING, Column, words

TEST = "test"
LABELS = {
    "ttft_ms": "TTFT ms",
    "tpot_ms": "TPOT ms",
    "tokens_per_s": "t/s",
    "e2e_ms": "e2e ms",
    "cold_start_ms": "cold start ms",
    "peak_rss_mb": "peak MB",
}
"""Heads of columns with metrics."""


def test_of(what: Configuration) -> str:
    """Lengths in the manner of llama-bench: ``e2e128+64`` reads 128 tokens and writes 64."""
    read = f"text:{what.text}" if what.source_tokens is None else f"e2e{what.source_tokens}"
    return read if what.new_tokens is None else f"{read}+{what.new_tokens}"


def settings(
    rows: Sequence[Configuration], facts: Mapping[str, BundleFacts] | None = None
) -> list[Column]:
    """What tells rows apart; depth only if it is not always full, facts of bundles if given."""
    columns = [words("bundle", [what.bundle for what in rows])]
    if facts is not None:
        known = [facts.get(what.bundle) for what in rows]
        sizes = [NOTHING if one is None else f"{one.file_bytes / 1e6:,.1f} MB" for one in known]
        columns += [
            Column("size", tuple(sizes), right=True, rank=1),
            words("quant", [NOTHING if one is None else one.precision for one in known], 2),
        ]
    threads = ["default" if what.threads is None else str(what.threads) for what in rows]
    columns += [
        words("device", [what.device for what in rows]),
        Column("threads", tuple(threads), right=True),
        Column("batch", tuple(str(what.batch) for what in rows), right=True),
    ]
    if any(what.depth != "full" for what in rows):
        columns.append(words("depth", [what.depth for what in rows]))
    return [*columns, words(TEST, [test_of(what) for what in rows])]
