"""`edgedec adapt`: train, on a text and with a frozen base, what a depth policy needs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedec.cli.terminal.logs import note, verbosity
from edgedec.cli.terminal.progress import Bar

if TYPE_CHECKING:
    from edgedec.adapt.pipeline import AdaptReport


@click.command("adapt", short_help="Train what a depth policy needs, on a text.")
@click.argument("checkpoint")
@click.option("-o", "--output", metavar="DIR", required=True, help="The checkpoint to write.")
@click.option(
    "--text",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Text to train on: lines, source<TAB>target, or .jsonl; may end with .gz.",
)
@click.option(
    "--depth",
    metavar="POLICY[:k=v,...]",
    required=True,
    help="The policy to adapt to, such as skipdecode:min=2,max=3,length=8.",
)
@click.option("--rank", type=int, default=16, show_default=True, help="Of low-rank corrections.")
@click.option("--alpha", type=float, help="They are scaled by alpha / rank.  [default: 2 rank]")
@click.option("--lora", is_flag=True, help="With lora-drop: train LoRA of all products, too.")
@click.option("--steps", type=int, help="Train for so many steps.  [default: 1000]")
@click.option("--minutes", type=float, help="Train for so many minutes instead.")
@click.option(
    "--batch-tokens", type=int, default=2048, show_default=True, help="Tokens of a batch."
)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Highest learning rate.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of whatever is random.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute with.")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--force", is_flag=True, help="Replace what was adapted before.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@verbosity
def command(checkpoint: str, output: str, as_json: bool, **given: Any) -> None:
    """Adapt CHECKPOINT to a depth policy, and write the checkpoint DIR, which `export` reads.

    CHECKPOINT is a Hugging Face folder, a hub id, or a built-in name (g2p). Its own weights stay as
    they are. Needs torch: pip install 'edgedec[torch]'.
    """
    from edgedec.adapt.options import AdaptOptions
    from edgedec.adapt.pipeline import adapt
    from edgedec.builtin import builtin_checkpoint

    options = AdaptOptions(**given)
    path = str(builtin_checkpoint(checkpoint) or checkpoint)
    with stoppable() as stopped, Bar("adapting", 1.0) as bar:
        try:
            report = adapt(
                path, output, options, lambda what, done: bar.update(done, what), stopped
            )
        except KeyboardInterrupt:
            if stopped():
                note("Interrupted: the same command with --resume goes on.")
            raise
    click.echo(json.dumps(report.to_json()) if as_json else described(report))


def described(report: AdaptReport) -> str:
    """A report for people."""
    before, after = report.before, report.after
    agreement = f"{before.agreement:.2%} -> {after.agreement:.2%}"
    lines = [
        f"{report.folder}  for --depth {report.depth}",
        f"{report.steps:,} steps in {report.seconds:,.0f} s, {report.parameters:,} parameters",
        f"loss {before.loss:.4f} -> {after.loss:.4f}, agreement with full depth {agreement}",
    ]
    if report.written:
        lines.append("the model wrote the targets that the text does not have")
    return "\n".join(lines)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and termination end the run after the step; a second Ctrl-C at once."""
    asked = False

    def stop(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if number == signal.SIGINT:
            note("Stopping after this step.")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield lambda: asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
