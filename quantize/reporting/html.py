"""A report as one page: no other files, no scripts, in the colours that the reader prefers."""

from __future__ import annotations

from dataclasses import asdict

from edgedec.quantize.reporting import plots, tables
from edgedec.quantize.reporting.report import Comparison, QuantizationReport
from edgedec.runtime.report.markup import element
from edgedec.runtime.report.page import document, facts, picture, table


def render(report: QuantizationReport | Comparison) -> str:
    """Write a report as an HTML page.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    plots.require_matplotlib()
    parts = _compared(report) if isinstance(report, Comparison) else _quantized(report)
    return document(tables.title(report), parts)


def _quantized(report: QuantizationReport) -> list[str]:
    parts: list[str] = [facts(tables.summary(report))]
    closeness = tables.closeness(report)
    if closeness:
        parts += ["<h2>The same as before?</h2>", table(closeness)]
    if report.task is not None:
        parts += ["<h2>Generated text</h2>", table(tables.task(report.task))]
    parts += [
        "<h2>Error by layer</h2>",
        picture(
            plots.error_by_layer(report),
            "How far the outputs of a matrix are from the original's on the calibration text, as "
            "a part of these.",
        ),
    ]
    bits = plots.bits_by_layer(report)
    if bits is not None:
        parts += ["<h2>Bits by layer</h2>", picture(bits, "Bits of the codes of each matrix.")]
    levels = plots.level_histograms(report)
    if levels is not None:
        caption = (
            "Parts of the weights at each level, over all codebooks of a kind; 1 is a codebook's "
            "largest level."
        )
        parts += ["<h2>Levels</h2>", picture(levels, caption)]
    return [
        *parts,
        "<h2>Kinds of matrices</h2>",
        table(tables.kinds(report)),
        "<h2>Matrices</h2>",
        table(tables.matrices(report)),
        _settings(report),
    ]


def _compared(report: Comparison) -> list[str]:
    text = report.rows[0].agreement.text
    where = (
        f"Calibrated on {report.calibration.name} "
        f"({report.calibration.tokens:,} tokens), measured on {text.name} "
        f"({text.tokens:,} tokens)."
    )
    return [
        element("p", where),
        table(tables.comparison(report)),
        "<h2>Closeness by size</h2>",
        picture(
            plots.closeness_by_size(report),
            "KL divergence from the floating-point model; lower and further to the left is better.",
        ),
    ]


def _settings(report: QuantizationReport) -> str:
    settings = {"sequential": report.sequential, **asdict(report.settings)}
    listed = ", ".join(f"{name} {value}" for name, value in settings.items())
    return element("footer", element("p", f"Settings: {listed}."))
