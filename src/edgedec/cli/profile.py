"""`edgedec profile`: how fast a bundle is here, and where time, memory and bytes go."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from edgedec.cli.terminal.logs import verbosity
from edgedec.errors import InputError

SHOWING = frozenset(("saved", "output", "save", "html", "compare", "fail_over", "fail_undecided"))
"""Options that do not say what to measure."""
NEEDS = {"fail_over": "compare", "fail_undecided": "compare", "remote_python": "via"}
"""Options that mean nothing without another."""
FORMATS = ("table", "md", "csv", "json", "jsonl")


@click.command("profile", short_help="Measure latency, throughput and memory of bundles.")
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]...")
@click.option("-s", "--source-tokens", metavar="LIST", help="Tokens of each input.  [default: 128]")
@click.option(
    "-n",
    "--new-tokens",
    metavar="LIST",
    help="Tokens of each output; with -f, at most so many.  [default: 64]",
)
@click.option(
    "-b", "--batch", metavar="LIST", default="1", show_default=True, help="Inputs at once."
)
@click.option("-t", "--threads", metavar="LIST", help="Threads of the CPU device.")
@click.option(
    "--device",
    metavar="LIST",
    help="Where to run, as of `edgedec run`.  [default: what each BUNDLE was exported for]",
)
@click.option(
    "--depth",
    metavar="POLICY",
    multiple=True,
    default=("full",),
    show_default=True,
    help="How deep tokens go: NAME[:key=value,...]; repeatable.",
)
@click.option("-f", "--file", metavar="FILE", help="Real inputs, one per line, instead of -s.")
@click.option(
    "-r",
    "--repetitions",
    type=click.IntRange(min=1),
    help="Requests that count, of every row.  [default: 10; with -f, every line once if more]",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Processes of every row; rows take turns, and these requests are divided among them.",
)
@click.option(
    "-w",
    "--warmup",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Requests of every process that do not count.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of synthetic inputs.")
@click.option("--in-process", is_flag=True, help="One process for all: no starts, no memory.")
@click.option("--ops", is_flag=True, help="Also run once with records of every operator.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="What to print.",
)
@click.option("--save", metavar="FILE", help="Also write the profile as JSON.")
@click.option("--html", metavar="FILE", help="Also write a report; implies --ops.")
@click.option("--trace", metavar="FILE", help="Also write a trace for Perfetto; implies --ops.")
@click.option("--from", "saved", metavar="FILE", help="Show a saved profile; measure nothing.")
@click.option("--compare", metavar="FILE", help="Compare with this saved profile.")
@click.option(
    "--fail-over",
    metavar="PERCENT",
    default="5%",
    show_default=True,
    help="With --compare, exit with 1 where a time or memory grew by more.",
)
@click.option("--fail-undecided", is_flag=True, help="... and where noise forbids a verdict.")
@click.option(
    "--baseline",
    metavar="hf[=CHECKPOINT]",
    help="Also time transformers with the same checkpoint.",
)
@click.option("--via", metavar="PREFIX", help='Measure on a device: "ssh board", "adb shell".')
@click.option(
    "--remote-python",
    metavar="PATH",
    default="python3",
    show_default=True,
    help="Python there that has edgedec.",
)
@click.option(
    "--architecture-study",
    "study",
    is_flag=True,
    help="Compare an encoder-decoder with a decoder-only model of its size; takes no BUNDLE.",
)
@click.option(
    "--shape",
    "shapes",
    type=click.Choice(["small", "paper"]),
    multiple=True,
    help="Sizes of these models; repeatable.  [default: small]",
)
@click.option(
    "--quant",
    type=click.Choice(["none", "int8", "cb4", "cb3", "cb2"]),
    help="How they store weights.  [default: none]",
)
@verbosity
def command(
    bundles: tuple[str, ...],
    output: str,
    study: bool,
    shapes: tuple[str, ...],
    quant: str | None,
    **options: Any,
) -> None:
    """Measure BUNDLEs: folders written by `edgedec export`, or built-in names (g2p).

    Several values of an option (8,32; 1-4; 16-64+16; 32-512*2) are measured in all combinations,
    each in a fresh process per round, in turns. With several BUNDLEs or depth policies, ratios
    against the first follow. docs/metrics.md says what every figure means.
    """
    if study:
        from edgedec.cli.terminal import studies

        if bundles:
            raise InputError("--architecture-study makes its own models: give no BUNDLE.")
        if others := sorted(given(options) - studies.OPTIONS):
            raise InputError(
                f"--architecture-study does not take {', '.join(map(_flag, others))}: leave it out."
            )
        code = studies.run(shapes or ("small",), quant or "none", output, options)
    elif shapes or quant:
        raise InputError("--shape and --quant belong to --architecture-study.")
    else:
        code = _profile(bundles, output, **options)
    sys.exit(code)


def _flag(name: str) -> str:
    """What an option is called on the command line."""
    (parameter,) = (one for one in command.params if one.name == name)
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else "BUNDLE"


def given(options: Mapping[str, Any]) -> set[str]:
    """Parameters that stand on the command line."""
    source = click.get_current_context().get_parameter_source
    return {name for name in options if source(name) is ParameterSource.COMMANDLINE}


def _profile(
    bundles: tuple[str, ...],
    output: str,
    *,
    save: str | None,
    html: str | None,
    trace: str | None,
    saved: str | None,
    compare: str | None,
    fail_over: str,
    fail_undecided: bool,
    via: str | None,
    remote_python: str,
    ops: bool,
    **options: Any,
) -> int:
    from edgedec.cli.terminal import profiles
    from edgedec.runtime.profiling.record import load_profile

    # What cannot be read or written must be known before an hour of measuring.
    limit = profiles.percent(fail_over)
    old = None if compare is None else load_profile(compare)
    profiles.check_files((save, html, trace), read=(saved, compare))
    chosen = given(click.get_current_context().params)
    for option, needed in NEEDS.items():
        if option in chosen and needed not in chosen:
            raise InputError(f"{_flag(option)} goes with {_flag(needed)} only: leave it out.")
    if saved is None:
        plan = profiles.plan(bundles, ops=ops or bool(html or trace), trace=bool(trace), **options)
        outcome = profiles.measure(plan, via, remote_python)
    elif measuring := sorted(chosen - SHOWING):
        raise InputError(
            "--from shows what was measured before: it does not take "
            f"{', '.join(map(_flag, measuring))}."
        )
    else:
        outcome = profiles.saved(load_profile(saved))
    files = profiles.Files(save, html, trace)
    return profiles.show(outcome, old, limit, fail_undecided, output, files)
