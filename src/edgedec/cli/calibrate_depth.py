"""`edgedec calibrate-depth`: which depth policies pay on a text, written into the bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedec.cli.terminal.logs import note, verbosity
from edgedec.cli.terminal.progress import Bar
from edgedec.errors import InputError

if TYPE_CHECKING:
    from edgedec.export.depth_table import Measured
    from edgedec.runtime.manifest import DepthTable

METRICS = ("agreement", "exact-match", "wer", "chrf", "bleu")
FEW = 1000
"""Tokens; what holds for fewer may be chance."""


@click.command("calibrate-depth", short_help="Measure which depth policies pay on a text.")
@click.argument("bundle")
@click.option(
    "--text",
    metavar="FILE",
    required=True,
    help="Inputs like the model's own, perhaps with targets (.txt, .tsv, .jsonl, also .gz).",
)
@click.option(
    "--depth",
    "depths",
    metavar="POLICY",
    multiple=True,
    help="Try this policy: NAME, with several settings, or NAME:key=value,... with this one.  "
    "[default: all that the bundle can run]",
)
@click.option(
    "--inputs",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Generate for so many lines, from all over the text.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=2),
    default=64,
    show_default=True,
    help="Of each result.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default=METRICS[0],
    show_default=True,
    help="What quality is: agreement with full depth, or a metric as a fraction of full depth's.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute with.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Measure times so often, and take medians.",
)
@click.option("-o", "--output", metavar="DIR", help="Write a copy of the bundle, not into BUNDLE.")
@click.option("--json", "as_json", is_flag=True, help="Print the points as JSON.")
@verbosity
def command(
    bundle: str,
    text: str,
    depths: tuple[str, ...],
    inputs: int,
    max_new_tokens: int,
    metric: str,
    threads: int | None,
    rounds: int,
    output: str | None,
    as_json: bool,
) -> None:
    """Compare depth policies on a text, and write what pays into BUNDLE.

    Each policy generates for the same inputs as full depth, in turns with it, one input at a time.
    Kept are the points that no other beats in quality and time; `edgedec run --depth
    auto:quality=0.99` picks the fastest of them that is good enough.
    """
    import edgedec
    from edgedec.builtin import resolve_bundle
    from edgedec.devices.options import default_threads
    from edgedec.export.depth_grid import candidates
    from edgedec.export.depth_table import (
        copy_bundle,
        make_table,
        measure_depths,
        read_inputs,
        write_table,
    )
    from edgedec.runtime.bundle import open_bundle
    from edgedec.runtime.static.options import check_calibration

    folder = resolve_bundle(bundle, note)
    check_calibration(open_bundle(folder).manifest)
    _check_target(folder, output)
    threads = threads or default_threads()
    generator = edgedec.load(folder, threads=threads)
    found, left_out = candidates(generator.bundle.manifest, depths)
    for name, reason in left_out.items():
        note(f"{name} is left out: {reason}")
    if not found:
        raise InputError(
            f"{bundle} can run no policy beside full depth: export it with --depth POLICY."
        )
    data = read_inputs(Path(text), generator.bundle, inputs, metric)

    def unable(depth: str, reason: str) -> None:
        left_out[depth] = reason
        note(f"{depth} is left out: {reason}")

    with Bar("calibrating", 1.0) as bar:
        points = measure_depths(
            generator,
            found,
            data,
            rounds=rounds,
            progress=lambda what, fraction: bar.update(fraction, what),
            left_out=unable,
            max_new_tokens=max_new_tokens,
        )
    table = make_table(points, data, metric, threads)
    tokens = points[0].tokens
    if tokens < FEW:
        note(
            f"Only {tokens} tokens were compared: so few say little, and quality 1 is no promise. "
            "Give a longer text, or more --inputs."
        )
    old = generator.bundle.manifest.depth
    if output is None and old is not None:
        note(f"This replaces the bundle's depth table: {len(old.points)} points from {old.text}.")
    if output is None:
        write_table(folder, table)
    else:
        copy_bundle(folder, Path(output), table)
    where = str(folder if output is None else output)
    if as_json:
        click.echo(json.dumps(_record(where, points, table, left_out), ensure_ascii=False))
        return
    from edgedec.cli.terminal.depth import calibration_table

    layers = generator.bundle.manifest.interface.decoder_layers
    click.echo("\n".join(calibration_table(points, layers)))
    note(f"The points with a star are in {where}: use them with --depth auto:quality=0.99.")


def _check_target(folder: Path, output: str | None) -> None:
    """Refuse what could not be written: before the work, which takes minutes."""
    if output is None and not os.access(folder, os.W_OK):
        raise InputError(f"{folder} cannot be written to: name a folder for a copy with -o DIR.")
    if output is not None and Path(output).exists():
        raise InputError(f"{output} exists: choose another name.")


def _record(
    where: str, points: list[Measured], table: DepthTable, left_out: dict[str, str]
) -> dict[str, Any]:
    from edgedec.runtime.schema import encode

    rows = []
    for measured in points:
        record = encode(measured)
        rows.append({**record.pop("point"), **record})
    facts = encode(table)
    del facts["points"]
    return {"bundle": where, **facts, "points": rows, "left_out": left_out}
