"""A report as one page: no other files, no scripts, in the colours that the reader prefers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from html import escape

from edgedec.quantize.reporting import plots, tables
from edgedec.quantize.reporting.report import Comparison, QuantizationReport

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --line: #b9b9c0; --back: #fff; --soft: #f3f3f6 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6ea; --line: #5c5c66; --back: #161618; --soft: #232327 }
}
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif }
h1 { font-size: 1.4rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th:first-child, td:first-child, .facts td { text-align: left }
.facts td { white-space: normal }
thead th { background: var(--soft) }
svg { display: block; width: 100%; max-width: 40rem; height: auto }
figure { margin: 0 }
figcaption, footer { font-size: .85rem }
"""


def render(report: QuantizationReport | Comparison) -> str:
    """Write a report as an HTML page.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    plots.require_matplotlib()
    parts = _compared(report) if isinstance(report, Comparison) else _quantized(report)
    name = escape(tables.title(report))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8" />',
            '<meta name="viewport" content="width=device-width, initial-scale=1" />',
            f"<title>{name}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{name}</h1>",
            *parts,
            "</body>",
            "</html>",
            "",
        ]
    )


def _quantized(report: QuantizationReport) -> list[str]:
    parts = [_facts(tables.summary(report))]
    closeness = tables.closeness(report)
    if closeness:
        parts += ["<h2>The same as before?</h2>", _table(closeness)]
    if report.task is not None:
        parts += ["<h2>Generated text</h2>", _table(tables.task(report.task))]
    parts += [
        "<h2>Error by layer</h2>",
        _figure(
            plots.error_by_layer(report),
            "How far the outputs of a matrix are from the original's on the calibration text, as "
            "a part of these.",
        ),
    ]
    bits = plots.bits_by_layer(report)
    if bits is not None:
        parts += ["<h2>Bits by layer</h2>", _figure(bits, "Bits of the codes of each matrix.")]
    levels = plots.level_histograms(report)
    if levels is not None:
        caption = (
            "Parts of the weights at each level, over all codebooks of a kind; 1 is a codebook's "
            "largest level."
        )
        parts += ["<h2>Levels</h2>", _figure(levels, caption)]
    return [
        *parts,
        "<h2>Kinds of matrices</h2>",
        _table(tables.kinds(report)),
        "<h2>Matrices</h2>",
        _table(tables.matrices(report)),
        _settings(report),
    ]


def _compared(report: Comparison) -> list[str]:
    text = report.rows[0].agreement.text
    where = (
        f"Calibrated on {tables.printable(report.calibration.name)} "
        f"({report.calibration.tokens:,} tokens), measured on {tables.printable(text.name)} "
        f"({text.tokens:,} tokens)."
    )
    return [
        f"<p>{escape(where)}</p>",
        _table(tables.comparison(report)),
        "<h2>Closeness by size</h2>",
        _figure(
            plots.closeness_by_size(report),
            "KL divergence from the floating-point model; lower and further to the left is better.",
        ),
    ]


def _settings(report: QuantizationReport) -> str:
    settings = {"sequential": report.sequential, **asdict(report.settings)}
    listed = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"<footer><p>Settings: {escape(listed)}.</p></footer>"


def _facts(rows: Sequence[tables.Row]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f'<table class="facts"><tbody>{body}</tbody></table>'


def _table(rows: Sequence[tables.Row]) -> str:
    head, *body = rows
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    return (
        f'<div class="wide"><table><thead><tr>{cells}</tr></thead>\n'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _figure(svg: str, caption: str) -> str:
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
