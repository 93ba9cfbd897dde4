"""Options of exports that say what the bundle is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
PRECISIONS = ("fp16", "nbits8", "nbits4", "w8a16", "w4a16", "lpbq")
"""How weights and activations are stored for NPUs."""


def precision(quant: str | None, device: str) -> str | None:
    """What ``--quant`` says; ``none`` is a word of the command line, and no NPU has it.

    Args:
        quant: as given.
        device: as ``--device`` takes it.
    """
    return None if quant == "none" and not _for_npu(device) else quant


def measured(folder: Path, device: str) -> dict[str, Any]:
    """What the check of an export for an NPU found, for ``--json``.

    Args:
        folder: the bundle that was written.
        device: as ``--device`` takes it.

    Returns:
        Nothing for another device; the agreement otherwise, which is None with ``--no-verify``.
    """
    if not _for_npu(device):
        return {}
    from edgedec.runtime.manifest import MANIFEST, load_manifest

    static = load_manifest((folder / MANIFEST).read_text(encoding="utf-8")).static
    found = None if static is None else static.agreement
    return {"agreement": None if found is None else asdict(found)}


def _for_npu(device: str) -> bool:
    from edgedec.devices.base import STATIC
    from edgedec.export.places import place

    found = place(device)
    return found is not None and found.device in STATIC


def target_options(command: Command) -> Command:
    """Add these options to a command."""
    options = (
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            metavar="DEVICE",
            help="What the bundle is for: `cpu`, an NPU (`qnn`, `openvino`), a GPU (`tensorrt`, "
            "`tensorrt-rtx`, `cuda`), or `encoder=qnn,decoder=cpu`.",
        ),
        click.option(
            "--max-source",
            type=int,
            metavar="N",
            help="NPU, GPU: tokens of a source.  [128; GPU: 512]",
        ),
        click.option(
            "--max-target",
            type=int,
            metavar="N",
            help="NPU, GPU: tokens of a target, prompt included.  [128, 512 without an encoder; "
            "GPU: 512, 1024]",
        ),
        click.option(
            "--min-agreement",
            type=float,
            metavar="X",
            help="NPU, GPU: refuse graphs that choose the model's token less often.  [0.97; NPU, "
            "4 bits: 0.9]",
        ),
        click.option(
            "--max-rows",
            type=int,
            metavar="N",
            help="GPU: sequences that run together, beams counted.  [16]",
        ),
        click.option(
            "--engines",
            metavar="DIR",
            help="GPU: also write TensorRT's engines there, for programs without edgedec.",
        ),
        click.option(
            "--kv",
            type=click.Choice(["fp16", "u8", "s16"]),
            help="NPU: how keys and values are stored.  [default: what suits --quant]",
        ),
        click.option("--chunk", type=int, metavar="N", help="NPU: prompt tokens per run.  [32]"),
        click.option("--unroll", type=int, metavar="K", help="NPU: greedy steps per run.  [1]"),
        click.option(
            "--soc",
            metavar="CHIPS",
            help="NPU: compile for these chips: `sm8650,sm8750`; `+` for one binary of several.",
        ),
        click.option(
            "--share-contexts",
            is_flag=True,
            help="NPU: let graphs of a chip share weights (untested on hardware).",
        ),
        click.option(
            "--budget",
            type=float,
            metavar="BITS",
            help="NPU: mean bits per weight within which the most sensitive of 4 bits get 8.",
        ),
    )
    for option in reversed(options):  # as decorators are applied: the last one first
        command = option(command)
    return command
