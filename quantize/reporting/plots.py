"""Reports as pictures: SVG to put into a page, in the page's own colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedec.errors import MissingDependencyError
from edgedec.quantize.reporting.kinds import by_kind, layer_of, layered
from edgedec.quantize.reporting.report import Comparison, MatrixReport, QuantizationReport
from edgedec.runtime.report.markup import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, LINE = "#010203", "#040506"
"""Stand for the page's colours of text and of thin lines until the picture is in it."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
MARKERS = "osv^D"
BITS_COLOURS = {2: "#d55e00", 3: "#e69f00", 4: "#009e73", 8: "#0072b2"}
WIDTH = 5.2
"""Inches of a picture: with letters of 9 points readable on a telephone."""
LONGEST = 32
"""Letters of a name that there is room for."""
MOST_KINDS = 40
"""With more kinds than this, names say nothing about layers, and matrices are only numbered."""
CELLS = 32
"""Columns of a histogram of levels."""


def require_matplotlib() -> None:
    """Raise `MissingDependencyError` where there are no plots: before work, not after it."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "HTML reports need matplotlib: pip install 'edgedec[report]'."
        ) from error


def error_by_layer(report: QuantizationReport) -> str:
    """Output errors over layers: a line for each kind, an axis for each part of the model."""
    kinds = layered(by_kind(report.matrices))
    if not kinds or len(kinds) > MOST_KINDS:
        return _picture("error", 2.6, [lambda axes: _errors_in_order(axes, report.matrices)])
    parts: dict[str, dict[str, Sequence[MatrixReport]]] = {}
    for kind, matrices in kinds.items():
        parts.setdefault(re.split(r"[./]", kind)[0], {})[kind] = matrices

    def lines(part: Mapping[str, Sequence[MatrixReport]]) -> Callable[[Axes], None]:
        return lambda axes: _errors(axes, part)

    return _picture("error", 3.6, [lines(part) for part in parts.values()])


def _errors(axes: Axes, kinds: Mapping[str, Sequence[MatrixReport]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (kind, matrices) in enumerate(kinds.items()):
        axes.plot(
            [layer_of(matrix.name) or 0 for matrix in matrices],
            [matrix.output_error for matrix in matrices],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number // len(COLOURS) % len(MARKERS)],
            markersize=3.5,
            linewidth=1,
            label=_short(kind),
        )
    _label(axes, "layer", "output error")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)


def _errors_in_order(axes: Axes, matrices: Sequence[MatrixReport]) -> None:
    errors = [matrix.output_error for matrix in matrices]
    axes.plot(range(1, len(errors) + 1), errors, "o", markersize=3, color=COLOURS[0])
    _label(axes, "matrix, in the order of use", "output error")


def bits_by_layer(report: QuantizationReport) -> str | None:
    """A field for each matrix with its bits; None where all layers have the same."""
    kinds = layered(by_kind(report.matrices))
    inner = [matrix for matrices in kinds.values() for matrix in matrices]
    if len({matrix.bits for matrix in inner}) < 2 or len(kinds) > MOST_KINDS:
        return None

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for row, matrices in enumerate(kinds.values()):
            for matrix in matrices:
                layer = layer_of(matrix.name) or 0
                axes.bar(layer, 0.9, 0.9, row - 0.45, color=BITS_COLOURS[matrix.bits])
                axes.text(layer, row, str(matrix.bits), ha="center", va="center", color="white")
        _name_rows(axes, kinds)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")

    return _picture("bits", 0.6 + 0.24 * len(kinds), [draw])


def level_histograms(report: QuantizationReport) -> str | None:
    """Which levels the weights of each kind have; None where no matrix has codes."""
    kinds = {
        kind: shares
        for kind, matrices in by_kind(report.matrices).items()
        if (shares := _level_shares(matrices)) is not None
    }
    if not kinds or len(kinds) > MOST_KINDS:
        kinds = {}
        shares = _level_shares(report.matrices)
        if shares is None:
            return None
        kinds["all matrices"] = shares

    def draw(axes: Axes) -> None:
        edges = np.linspace(-1, 1, CELLS + 1)
        for row, shares in enumerate(kinds.values()):
            axes.stairs(
                row + 0.4 - 0.8 * shares / shares.max(),
                edges,
                baseline=row + 0.4,
                fill=True,
                color=COLOURS[0],
            )
        _name_rows(axes, kinds)
        axes.set_xticks([-1, -0.5, 0, 0.5, 1])
        axes.set_xlabel("level")

    return _picture("levels", 0.6 + 0.36 * len(kinds), [draw])


def _name_rows(axes: Axes, kinds: Iterable[str]) -> None:
    """Kinds from top to bottom, at 0, 1, 2 and so on."""
    names = [_short(kind) for kind in kinds]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _level_shares(matrices: Sequence[MatrixReport]) -> Any | None:
    """Parts of the weights by level, of -1 to 1 in `CELLS` steps, over all codebooks."""
    shares = np.zeros(CELLS)
    for matrix in matrices:
        reach = 128 if matrix.bits == 8 else 64
        for use in matrix.codebooks:
            cell = (np.array(use.levels) / reach + 1) / 2 * CELLS
            np.add.at(shares, cell.astype(int), use.counts)
    total = shares.sum()
    return shares / total if total else None


def closeness_by_size(report: Comparison) -> str:
    """KL over stored bits per weight: a point for each method, its name beside it."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    rows = [row for row in report.rows if row.agreement.kl > 0]

    def draw(axes: Axes) -> None:
        for number, row in enumerate(rows):
            colour = COLOURS[number % len(COLOURS)]
            place = (row.bits_per_weight, row.agreement.kl)
            axes.plot(*place, "o" if row.stored else "x", color=colour, markersize=5)
            axes.annotate(
                printable(row.method), place, (5, 3), textcoords="offset points", color=colour
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2)
        _label(axes, "stored bits per weight (x: not in bundles)", "KL, nats per token")

    return _picture("closeness", 3.4, [draw])


def _short(name: str) -> str:
    """The end of a name, where it is too long to stand beside a picture."""
    return printable(name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}")


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, axis="y")


def _picture(name: str, height: float, drawings: Sequence[Callable[[Axes], None]]) -> str:
    """Draw axes below each other, each ``height`` inches high."""
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with _style(name):
        figure = Figure((WIDTH, height * len(drawings)), layout="constrained")
        grid = figure.subplots(len(drawings), squeeze=False).ravel()
        for axes, draw in zip(grid, drawings, strict=True):
            draw(axes)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _embedded(buffer.getvalue())


@contextmanager
def _style(name: str) -> Iterator[None]:
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        "font.size": 9,
        "legend.fontsize": 8,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": LINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": LINE,
        "grid.linewidth": 0.5,
        "text.parse_math": False,  # names may hold dollars
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # ids that are the same every time, and differ between pictures
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # It has no letters of many languages, but the browser has.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _embedded(svg: str) -> str:
    """The SVG element alone, as wide as its place, without ids that nothing refers to."""
    svg = svg[svg.index("<svg") :].strip()
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    return f"{head}>{body}".replace(INK, "var(--ink)").replace(LINE, "var(--line)")
