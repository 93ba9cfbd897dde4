"""`edgedec quantize`: weights become codes, fitted to a text; a report says at what cost."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedec.cli.terminal.checkpoint import checkpoint_options
from edgedec.cli.terminal.logs import note, verbosity
from edgedec.cli.terminal.progress import Bar
from edgedec.cli.terminal.sizes import folder_bytes, human_bytes, model_bytes
from edgedec.cli.terminal.stopping import stopped_by_sigterm
from edgedec.errors import InputError
from edgedec.runtime.report.columns import columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgedec.quantize.options import QuantizeOptions
    from edgedec.quantize.reporting.report import Comparison, QuantizationReport

STORED = ("jlcm", "rtn", "nf4", "kmeans", "gptq", "gptq-codebook")
COMPARED = ("rtn-block32", "nf4-block64", "kmeans-rows", "gptq-block32")
"""Methods whose results no bundle can hold."""


@click.command("quantize", short_help="Turn weights into codes, fitted to a text.")
@click.argument("source", required=False)
@click.option("-m", "--model", metavar="SOURCE", help="The same as the argument SOURCE.")
@click.option("-o", "--output", metavar="DIR", help="The bundle folder or OUT.onnx to write.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice([*STORED, *COMPARED]),
    help="How codes are chosen.  [default: jlcm, for 8 bits rtn; with --compare all, or those that "
    "are given]",
)
@click.option(
    "--bits",
    type=click.Choice(["4", "3", "2", "8", "mixed"]),
    default="4",
    show_default=True,
    help="Bits per code; `mixed` chooses for each matrix.",
)
@click.option("--budget", type=float, help="With mixed bits: stored bits per weight on average.")
@click.option(
    "--embedding-bits",
    type=click.Choice(["4", "8"]),
    help="Bits of the embedding and the head.  [default: what suits --bits]",
)
@click.option(
    "--calib",
    "calibration",
    metavar="FILE",
    help="Text to calibrate on; for an ONNX model .npz files of its inputs.  [default: the "
    "checkpoint's, or one that ships with edgedec]",
)
@click.option("--tokens", type=int, help="Use so many of its tokens.  [default: 8192]")
@click.option(
    "--eval", "evaluation", metavar="FILE", help="Measure on this too: text, or pairs of texts."
)
@click.option("--compare", is_flag=True, help="Compare methods and write no bundle.")
@click.option("--html", metavar="FILE", help="Write the report as a page.")
@click.option("--matrices", is_flag=True, help="List every matrix, not every kind.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--groups", type=int, default=4, show_default=True, help="Codebooks of each matrix.")
@click.option(
    "--grouping",
    type=click.Choice(["contiguous", "distribution", "auto"]),
    default="contiguous",
    show_default=True,
    help="Which rows share a codebook.",
)
@click.option("--joint", is_flag=True, help="Also learn codes by gradients; keep what is better.")
@click.option(
    "--sequential/--no-sequential",
    default=True,
    help="Let later matrices make up for earlier ones.  [default: on]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of whatever is random.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute with.")
@click.option(
    "--compute",
    type=click.Choice(["int8", "int8-block", "bf16", "fp32"]),
    help="How products with codes are computed.  [default: int8]",
)
@click.option("--portable", is_flag=True, help="Leave all but matrices in standard operators.")
@checkpoint_options("SOURCE")
@click.option(
    "--via",
    type=click.Choice(["optimum"]),
    help="Use optimum-onnx for an architecture without a family here.",
)
@click.option(
    "--verify/--no-verify", default=True, help="Compare with the reference.  [default: on]"
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@verbosity
def command(
    source: str | None,
    model: str | None,
    output: str | None,
    methods: tuple[str, ...],
    compare: bool,
    html: str | None,
    matrices: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Quantize SOURCE into the bundle folder DIR, and print what that costs.

    SOURCE is a Hugging Face folder, a hub id, a built-in name (g2p), or a bundle that was exported
    without --quant. Interrupted, the same command goes on where it was.

    With an ONNX model MODEL.onnx, -o names another one to write.
    """
    if (source is None) == (model is None):
        raise InputError("Name one source: a folder, a hub id, a built-in name or a bundle.")
    if compare == (output is not None):
        raise InputError(
            "--compare writes no bundle: leave out -o."
            if compare
            else "Name the bundle to write with -o DIR, or compare methods with --compare."
        )
    from edgedec.builtin import builtin_checkpoint

    options = _options(methods, given, compare=compare)
    if html is not None:
        _check_page(html)
    name = source or model or ""
    path = str(builtin_checkpoint(name) or name)
    if output is None and _is_model(path):
        raise InputError("--compare is for checkpoints and bundles: name an ONNX model with -o.")
    with stopped_by_sigterm():
        if output is None:
            report: QuantizationReport | Comparison = _compare(path, options, methods)
        else:
            report = _quantize(path, output, options)
        if as_json:
            _print(_json(report, output), output)
        else:
            _print("\n\n".join(_described(report, output, every=matrices)) + "\n", output)
        if html is not None:
            _write_page(report, html, output)


def _options(methods: tuple[str, ...], given: dict[str, Any], *, compare: bool) -> QuantizeOptions:
    from edgedec.quantize.method import Settings
    from edgedec.quantize.options import MIXED, QuantizeOptions

    if compare and given["bits"] == MIXED:
        raise InputError("--compare with --bits mixed: compare methods at 2, 3, 4 or 8 bits.")
    settings = Settings(**{key: given.pop(key) for key in ("groups", "grouping", "joint", "seed")})
    bits, embedding = given.pop("bits"), given.pop("embedding_bits")
    if given["tokens"] is None:
        del given["tokens"]
    for key in ("calibration", "evaluation"):
        given[key] = None if given[key] is None else Path(given[key])
    if not compare and len(methods) > 1:
        raise InputError(f"A bundle is made by one method, not by {' and '.join(methods)}.")
    return QuantizeOptions(
        method=methods[0] if methods and not compare else "",
        bits=bits if bits == MIXED else int(bits),
        embedding_bits=None if embedding is None else int(embedding),
        settings=settings,
        **given,
    )


def _quantize(source: str, out: str, options: QuantizeOptions) -> QuantizationReport:
    from edgedec.export.onnx_model import quantize_onnx
    from edgedec.export.quantized import quantize_source

    quantize = quantize_onnx if _is_model(source) else quantize_source
    with _resumable(out), Bar("quantizing", 1.0) as bar:
        report = quantize(source, out, options, lambda what, fraction: bar.update(fraction, what))
    assert report is not None  # which was asked for
    return report


def _is_model(name: str) -> bool:
    """Whether a source or what is written of it is a bare ONNX model."""
    return name.endswith(".onnx") and not Path(name).is_dir()


def _size(output: str) -> int:
    return model_bytes(Path(output)) if _is_model(output) else folder_bytes(Path(output))


@contextmanager
def _resumable(out: str) -> Iterator[None]:
    from edgedec.export.workplace import FINISHED

    try:
        yield
    except KeyboardInterrupt:
        finished = Path(out).parent / f".{Path(out).name}.quantizing" / FINISHED
        if finished.is_dir() and any(finished.iterdir()):
            note("Interrupted: the same command goes on with the matrices that are finished.")
        raise


def _compare(source: str, options: QuantizeOptions, names: Sequence[str]) -> Comparison:
    from edgedec.export.compare import compare_methods
    from edgedec.quantize.methods import METHODS

    able = [name for name, method in METHODS.items() if options.bits in method.bits]
    unable = [name for name in names if name not in able]
    if unable:
        bits = ", ".join(map(str, METHODS[unable[0]].bits))
        raise InputError(f"--method {unable[0]} has codes of {bits} bits, not {options.bits}.")
    with Bar("comparing", 1.0) as bar:
        return compare_methods(
            source,
            options,
            tuple(names) or tuple(able),
            lambda what, fraction: bar.update(fraction, what),
        )


def _check_page(name: str) -> None:
    """Refuse a page that could not be written: before the work, which takes long."""
    from edgedec.quantize.reporting.plots import require_matplotlib

    path = Path(name)
    if path.is_dir():
        raise InputError(f"--html {name} is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise InputError(f"--html {name}: there is no folder {path.parent}.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"--html {name} cannot be written.")
    require_matplotlib()


def _write_page(report: QuantizationReport | Comparison, name: str, output: str | None) -> None:
    from edgedec.quantize.reporting.html import render

    try:
        Path(name).write_text(render(report), encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(
            f"--html {name} cannot be written: {error.strerror}{_made(output)}."
        ) from error


def _print(text: str, output: str | None) -> None:
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:  # the reader has gone, which is no error
        raise
    except OSError as error:
        # What is still buffered cannot be written when Python closes the stream either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise InputError(
            f"the report cannot be printed: {error.strerror}{_made(output)}."
        ) from error


def _made(output: str | None) -> str:
    """What a sentence about a report that got lost adds: the work did not."""
    return "" if output is None else f"; {output} is complete"


def _json(report: QuantizationReport | Comparison, output: str | None) -> str:
    from edgedec.quantize.reporting.report import to_json

    text = to_json(report)
    if output is None:
        return text
    kind = "model" if _is_model(output) else "bundle"
    facts = {kind: output, "bytes": _size(output), "report": json.loads(text)}
    return json.dumps(facts, ensure_ascii=False) + "\n"


def _described(
    report: QuantizationReport | Comparison, output: str | None, *, every: bool
) -> list[str]:
    """A report for people: tables."""
    from edgedec.quantize.reporting import tables
    from edgedec.quantize.reporting.report import Comparison

    if isinstance(report, Comparison):
        return [tables.title(report), _table(tables.comparison(report))]
    assert output is not None
    parts = [
        f"{output}  {human_bytes(_size(output))}",
        "\n".join(columns(tables.summary(report))),
    ]
    closeness = tables.closeness(report)
    if closeness:
        parts.append(_table(closeness))
    if report.task is not None:
        parts.append(_table(tables.task(report.task)))
    return [*parts, _table(tables.matrices(report) if every else tables.kinds(report))]


def _table(rows: list[list[str]]) -> str:
    return "\n".join(columns(rows, right=frozenset(range(1, len(rows[0])))))
