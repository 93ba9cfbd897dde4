"""`edgedec profile --architecture-study`: which options it takes, and how it shows its work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgedec.cli.terminal.logs import note
from edgedec.cli.terminal.profiles import INTERRUPTED, check_files
from edgedec.cli.terminal.progress import Bar
from edgedec.errors import InputError

PROMPTS, NEW_TOKENS = "128,256,512,1024", "64"
REPETITIONS = 10
FORMATS = ("table", "md", "json")
OPTIONS = frozenset(
    ("source_tokens", "new_tokens", "threads", "repetitions", "rounds", "warmup", "seed", "save")
)
"""Of `edgedec profile`, those that a study takes."""


def run(shapes: tuple[str, ...], quant: str, output: str, options: Mapping[str, Any]) -> int:
    """Make the models, measure, print.

    Args:
        shapes: of ``--shape``.
        quant: of ``--quant``.
        output: of ``-o``.
        options: all the others.

    Returns:
        The exit code.

    Raises:
        InputError: an option that makes no sense.
    """
    from edgedec.runtime.profiling.record import Effort
    from edgedec.runtime.profiling.sweep import numbers
    from edgedec.runtime.text_file import write_text
    from edgedec.study import render, study

    if output not in FORMATS:
        raise InputError(f"--architecture-study prints {', '.join(FORMATS)}, not {output}.")
    check_files((options["save"],), read=())
    prompts = numbers(options["source_tokens"] or PROMPTS, "-s")
    new_tokens, *more = numbers(options["new_tokens"] or NEW_TOKENS, "-n")
    threads, *others = (None,) if options["threads"] is None else numbers(options["threads"], "-t")
    if more or others:
        raise InputError("--architecture-study takes one number for -n and one for -t.")
    repetitions = options["repetitions"] or REPETITIONS
    effort = Effort(
        rounds=min(options["rounds"], repetitions),
        repetitions=repetitions,
        warmup=options["warmup"],
        fresh=True,
        seed=options["seed"],
    )
    with Bar("preparing", 1.0) as bar:
        found = study(
            shapes=shapes,
            prompts=prompts,
            new_tokens=new_tokens,
            threads=threads,
            quant=quant,
            effort=effort,
            note=note,
            progress=lambda label, fraction: bar.update(fraction, label),
        )
    click.echo(render(found, output), nl=False)
    if options["save"] is not None:
        write_text(options["save"], render(found, "json"))
    if not found.profile.complete:
        note("Interrupted: this is what was measured until then.")
        return INTERRUPTED
    return 1 if any(m.error for m in found.measurements) else 0
