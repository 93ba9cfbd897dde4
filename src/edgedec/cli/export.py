"""`edgedec export`: a checkpoint in, a bundle out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgedec.cli.terminal.checkpoint import checkpoint_options
from edgedec.cli.terminal.logs import verbosity
from edgedec.cli.terminal.progress import Bar
from edgedec.cli.terminal.sizes import folder_bytes, human_bytes
from edgedec.cli.terminal.stopping import stopped_by_sigterm
from edgedec.cli.terminal.targets import PRECISIONS, measured, precision, target_options
from edgedec.errors import InputError


@click.command("export", short_help="Turn a checkpoint into a bundle.")
@click.argument("checkpoint", required=False)
@click.option("-m", "--model", metavar="CHECKPOINT", help="The same as the argument CHECKPOINT.")
@click.option("-o", "--output", metavar="DIR", required=True, help="The bundle folder to write.")
@checkpoint_options("CHECKPOINT")
@click.option(
    "--lora",
    type=click.Choice(["merge", "keep"]),
    default="merge",
    show_default=True,
    help="Add such an adapter to the weights, or keep it beside them.",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    default="fp32",
    show_default=True,
    help="Stored weights.",
)
@click.option(
    "--quant",
    type=click.Choice(["none", "cb4", "cb3", "cb2", "int8", *PRECISIONS]),
    help="Store weights as codes of 4, 3, 2 or 8 bits; from `fp16` on for NPUs.  [default: none; "
    "for NPUs nbits8]",
)
@click.option(
    "--compute",
    type=click.Choice(["int8", "int8-block", "bf16", "fp32"]),
    help="How products with such weights are computed.  [default: int8]",
)
@click.option(
    "--method",
    type=click.Choice(["jlcm", "kmeans", "rtn", "gptq", "gptq-codebook", "nf4"]),
    help="How --quant chooses codes (see `edgedec quantize`).  [default: jlcm; rtn for int8]",
)
@click.option(
    "--calib",
    metavar="FILE",
    help="Text like what the model will read: to learn from, and for NPUs to verify on.",
)
@click.option("--portable", is_flag=True, help="With --quant, leave all but matrices standard.")
@click.option(
    "--via",
    type=click.Choice(["optimum"]),
    help="Use optimum-onnx for an architecture without a family here.",
)
@target_options
@click.option(
    "--verify/--no-verify", default=True, help="Compare with the reference.  [default: on]"
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbosity
def command(
    checkpoint: str | None,
    model: str | None,
    output: str,
    revision: str | None,
    tokenizer: str | None,
    stages: str | None,
    depth: tuple[str, ...],
    base: str | None,
    lora: str,
    dtype: str,
    quant: str | None,
    compute: str | None,
    method: str | None,
    calib: str | None,
    portable: bool,
    via: str | None,
    verify: bool,
    force: bool,
    as_json: bool,
    **target: Any,
) -> None:
    """Export CHECKPOINT into the bundle folder DIR and print its path and size.

    CHECKPOINT is a Hugging Face folder, a hub id (google/flan-t5-small) or a built-in name (g2p);
    for an NPU or a GPU (--device) also a bundle.
    """
    if (checkpoint is None) == (model is None):
        raise InputError("Name one checkpoint: a folder, a hub id or a built-in name.")
    from edgedec.builtin import builtin_checkpoint
    from edgedec.export import export_checkpoint

    name = checkpoint or model or ""
    source = builtin_checkpoint(name) or name
    with stopped_by_sigterm(), Bar("exporting", 1.0) as bar:
        bundle = export_checkpoint(
            source,
            output,
            quant=precision(quant, target["device"]),
            compute=compute,
            portable=portable,
            method=method,
            calibration=calib,
            stages=stages,
            depth=depth,
            base=base,
            lora=lora,
            dtype=dtype,
            revision=revision,
            tokenizer=tokenizer,
            via=via,
            verify=verify,
            force=force,
            **target,
            progress=lambda what, fraction: bar.update(fraction, what),
        )
    size = folder_bytes(Path(bundle))
    if as_json:
        found = {"bundle": str(bundle), "bytes": size} | measured(Path(bundle), target["device"])
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        click.echo(f"{bundle}  {human_bytes(size)}")
