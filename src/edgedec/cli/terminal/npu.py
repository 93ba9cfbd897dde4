"""Options of exports for NPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
PRECISIONS = ("fp16", "nbits8", "nbits4", "w8a16", "w4a16", "lpbq")
"""How weights and activations are stored there."""


def measured(folder: Path, device: str) -> dict[str, Any]:
    """What the check of an export found, for ``--json``.

    Args:
        folder: the bundle that was written.
        device: as ``--device`` takes it.

    Returns:
        Nothing for a device without a check of this kind; the agreement otherwise, which is None
        with ``--no-verify``.
    """
    from edgedec.export.places import place

    if place(device) is None:
        return {}
    from edgedec.runtime.manifest import MANIFEST, load_manifest

    static = load_manifest((folder / MANIFEST).read_text(encoding="utf-8")).static
    found = None if static is None else static.agreement
    return {"agreement": None if found is None else asdict(found)}


def npu_options(command: Command) -> Command:
    """Add these options to a command."""
    options = (
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            metavar="DEVICE",
            help="What the bundle is for: `cpu`, `qnn`, `openvino`, or `encoder=qnn,decoder=cpu`. "
            "The options below are for NPUs.",
        ),
        click.option(
            "--kv",
            type=click.Choice(["fp16", "u8", "s16"]),
            help="How keys and values are stored.  [default: what suits --quant]",
        ),
        click.option("--max-source", type=int, metavar="N", help="Tokens of a source.  [128]"),
        click.option(
            "--max-target",
            type=int,
            metavar="N",
            help="Tokens of a target, prompt included.  [128; 512 without an encoder]",
        ),
        click.option("--chunk", type=int, metavar="N", help="Prompt tokens per run.  [32]"),
        click.option("--unroll", type=int, metavar="K", help="Greedy steps per run.  [1]"),
        click.option(
            "--soc",
            metavar="CHIPS",
            help="Compile for these chips: `sm8650,sm8750`; `+` for one binary of several.",
        ),
        click.option(
            "--share-contexts",
            is_flag=True,
            help="Let graphs of a chip share weights (untested on hardware).",
        ),
        click.option(
            "--min-agreement",
            type=float,
            metavar="X",
            help="Refuse graphs that choose the model's token less often.  [0.97; 4 bits: 0.9]",
        ),
        click.option(
            "--budget",
            type=float,
            metavar="BITS",
            help="Mean bits per weight within which the most sensitive of 4 bits get 8.",
        ),
    )
    for option in reversed(options):  # as decorators are applied: the last one first
        command = option(command)
    return command
