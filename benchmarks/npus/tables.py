"""Results as Markdown, as docs/npu.md has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comparison.markdown import print_table

from npus.cells import BARS

Result = Mapping[str, Any]
COLUMNS = (
    ("device", "simulator = float", "{:.4f}"),
    ("cpu", "CPU = float", "{:.4f}"),
    ("device_cpu", "simulator = CPU", "{:.4f}"),
    ("device_error", "error of logits", "{:.4f}"),
    ("device_same", "same answers", "{:.3f}"),
    ("wer", "WER %", "{:.2f}"),
    ("wer_change", "by float", "{:+.2f}"),
    ("wer_change_cpu", "CPU by float", "{:+.2f}"),
    ("eight", "weights at 8 bits", "{}"),
    ("tokens", "tokens", "{}"),
)
"""Figure, what its column is called, how it is printed."""


def print_tables(results: Sequence[Result]) -> None:
    """Everything, and whether what must hold does."""
    runs = [r for r in results if r["kind"] == "run"]
    for model in dict.fromkeys(r["model"] for r in runs):
        own = [r for r in runs if r["model"] == model]
        there = [c for c in COLUMNS if any(c[0] in r for r in own)]
        header = [model, *(title for _, title, _ in there), "MB", "of nbits8"]
        rows = []
        for result in own:
            cells = [form.format(result[key]) if key in result else "" for key, _, form in there]
            ratio = of_eight(result, own)
            size = f"{result['bytes'] / 1e6:.1f}", "" if ratio is None else f"{ratio:.3f}"
            rows.append([f"`{result['cell']}`", *cells, *size])
        print_table(header, rows)
    contexts = [r for r in results if r["kind"] == "context"]
    rows = [
        [
            result["model"],
            f"`{result['cell']}`",
            result["soc"],
            ", ".join(f"{name} {size / 1e6:.1f}" for name, size in result["bytes"].items()),
            "; ".join(result["failures"]) or "equal bits",
        ]
        for result in contexts
    ]
    print_table(["model", "precision", "chip", "MB", "loaded again"], rows)
    print_table(["what must hold", "figure", "bar", ""], list(bars(runs)))


def bars(runs: Sequence[Result]) -> Iterable[list[str]]:
    """Every bar whose cell was measured."""
    for bar in BARS:
        for result in runs:
            if (result["model"], result["cell"]) != (bar.model, bar.cell):
                continue
            own = [r for r in runs if r["model"] == bar.model]
            figures = {**result, "of_eight": of_eight(result, own)}
            value = figures.get(bar.figure)
            if value is None:
                continue
            limit = f">= {bar.least}" if bar.least is not None else f"<= {bar.most}"
            met = "met" if bar.met(value) else "missed"
            yield [f"{bar.model} `{bar.cell}` {bar.figure}", f"{value:.4f}", limit, met]


def of_eight(result: Result, own: Sequence[Result]) -> float | None:
    """Bytes by those of nbits8, where that was measured."""
    eight = [r["bytes"] for r in own if r["cell"] == "nbits8"]
    return result["bytes"] / eight[0] if eight else None
