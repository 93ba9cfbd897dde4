"""Reports as rows of cells, for terminals and pages alike; the first row of a table is its head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from edgedec.quantize.reporting.kinds import bits_used, by_kind
from edgedec.quantize.reporting.report import (
    Agreement,
    Compared,
    Comparison,
    MatrixReport,
    QuantizationReport,
    Score,
    Task,
)
from edgedec.runtime.report.markup import printable

Row = list[str]
NOTHING = "-"
"""Where a figure does not exist."""


def megabytes(size: int) -> str:
    """A size for people: ``16.55 MB``."""
    return f"{size / 1e6:,.2f} MB"


def small(value: float | None) -> str:
    """An error for people, with four digits."""
    return NOTHING if value is None else f"{value:.4g}"


def perplexity(loss: float | None) -> str:
    """Of a cross-entropy in nats."""
    return NOTHING if loss is None else f"{math.exp(loss):.4g}"


def title(report: QuantizationReport | Comparison) -> str:
    """What a report is about, in a line."""
    if isinstance(report, Comparison):
        return f"{printable(report.source)}: methods at {report.bits} bits"
    bits = f"{report.bits} bits" if report.budget is None else f"{report.budget:g} bits, mixed"
    return f"{printable(report.source)}: {printable(report.method)}, {bits}"


def summary(report: QuantizationReport) -> list[Row]:
    """The figures that matter most, by name; no head."""
    totals = report.totals()
    rows = [
        ["matrices", f"{totals.matrices:,} with {totals.weights:,} weights"],
        ["size", f"{megabytes(totals.bytes)}, in float32 {megabytes(totals.float32_bytes)}"],
        ["bits per weight", f"{totals.bits_per_weight:.3f} with levels, scales and row order"],
        ["output error", f"{small(totals.output_error)} in the mean over matrices"],
    ]
    if totals.objective_start is not None:
        fallen = f"{small(totals.objective_start)} to {small(totals.objective_end)}"
        rows.append(["objective", f"{fallen}, summed over matrices"])
    if report.calibration is not None:
        counted = "inputs" if report.outputs else "tokens"
        text = f"{printable(report.calibration.name)}, {report.calibration.tokens:,} {counted}"
        rows.append(["calibrated on", text])
    if report.seconds is not None:
        rows.append(["time", f"{report.seconds:.1f} s"])
    return rows


def kinds(report: QuantizationReport) -> list[Row]:
    """A row for each kind of matrices, those of all layers together."""
    rows = [["matrices", "count", "rows", "columns", "bits", "bits/weight", "error", "largest"]]
    for kind, matrices in by_kind(report.matrices).items():
        weights = sum(matrix.weights for matrix in matrices)
        rows.append(
            [
                printable(kind),
                f"{len(matrices):,}",
                _range([matrix.rows for matrix in matrices]),
                _range([matrix.columns for matrix in matrices]),
                bits_used(matrices),
                f"{8 * sum(matrix.bytes for matrix in matrices) / weights:.3f}",
                small(fmean(matrix.output_error for matrix in matrices)),
                small(max(matrix.output_error for matrix in matrices)),
            ]
        )
    return rows


def matrices(report: QuantizationReport) -> list[Row]:
    """A row for each matrix."""
    head = ["matrix", "rows", "columns", "bits", "method", "bytes", "bits/weight", "error"]
    return [
        [*head, "objective at first", "at last", "seconds"],
        *(_matrix(matrix) for matrix in report.matrices),
    ]


def _matrix(matrix: MatrixReport) -> Row:
    return [
        printable(matrix.name),
        f"{matrix.rows:,}",
        f"{matrix.columns:,}",
        str(matrix.bits),
        printable(matrix.method),
        f"{matrix.bytes:,}",
        f"{matrix.bits_per_weight:.3f}",
        small(matrix.output_error),
        small(matrix.objective_start),
        small(matrix.objective_end),
        NOTHING if matrix.seconds is None else f"{matrix.seconds:.2f}",
    ]


def agreements(report: QuantizationReport) -> list[Row]:
    """How close the models are, a row for each text."""
    return [
        ["text", "tokens", "KL, nats/token", "same token", "perplexity", "quantized"],
        *(_agreement(agreement) for agreement in report.agreements),
    ]


def outputs(report: QuantizationReport) -> list[Row]:
    """How far outputs are from the original ones, a row for each."""
    return [
        ["output", "error"],
        *([printable(output.name), small(output.error)] for output in report.outputs),
    ]


def closeness(report: QuantizationReport) -> list[Row]:
    """`agreements` of a language model, `outputs` of another; empty where nothing was measured."""
    if report.agreements:
        return agreements(report)
    return outputs(report) if report.outputs else []


def _agreement(agreement: Agreement) -> Row:
    return [
        printable(agreement.text.name),
        f"{agreement.text.tokens:,}",
        small(agreement.kl),
        f"{agreement.agreement:.2%}",
        perplexity(agreement.loss_before),
        perplexity(agreement.loss_after),
    ]


def task(task: Task) -> list[Row]:
    """Generated text against references, a row for each metric."""
    rows = [[f"{printable(task.name)}, {task.samples:,} lines", "float32", "quantized"]]
    for before, after in zip(task.before, task.after, strict=True):
        rows.append([_metric(before), f"{before.value:.2f} %", f"{after.value:.2f} %"])
    return rows


def _metric(score: Score) -> str:
    return f"{score.name} (lower is better)" if score.lower_is_better else score.name


def comparison(report: Comparison) -> list[Row]:
    """A row for each method."""
    metrics = [_metric(score) for score in report.rows[0].scores]
    head = ["method", "bits/weight", "error", "KL, nats/token", "same token", "perplexity"]
    return [
        [*head, *metrics, "seconds", "in bundles"],
        *(_compared(row) for row in report.rows),
    ]


def _compared(row: Compared) -> Row:
    return [
        printable(row.method),
        f"{row.bits_per_weight:.3f}",
        small(row.output_error),
        small(row.agreement.kl),
        f"{row.agreement.agreement:.2%}",
        perplexity(row.agreement.loss_after),
        *(f"{score.value:.2f} %" for score in row.scores),
        NOTHING if row.seconds is None else f"{row.seconds:.1f}",
        "yes" if row.stored else "no",
    ]


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
