"""What depth policies cost and bring: quality, layers and time of each beside full depth.

    python benchmarks/depth.py g2p --dictionary cmudict.txt.gz --adapted out/g2p-skipdecode
    python benchmarks/depth.py lm --checkpoint lm-layerskip --text heldout.txt.gz --format cb4

``g2p`` is the built-in model (word errors on the test part of CMUdict), ``lm`` a Llama of the
LayerSkip recipe (64 tokens after prompts of 64, greedy, from text after its first 200 KB). Bundles
are exported once into the work folder, with a stage for every layer. Quality is that of all inputs;
times are medians over rounds in which all policies take turns for every input, one at a time.
Ratios are to the same model in one stage at full depth, which is what `edgedec export` makes.
``--adapted`` adds a checkpoint that `edgedec adapt` wrote, with the policies that it names.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from comparison.machine import machine
from depths import cases, policies
from depths.bars import Verdict, verdicts
from depths.measure import FULL, Outcome, Subject, measure
from rich.console import Console

import edgedec
from edgedec.builtin import CHECKPOINTS
from edgedec.errors import InputError
from edgedec.runtime.depth.options import make_policy
from edgedec.runtime.text import Tokenizer

EXISTING = click.Path(exists=True, path_type=Path)
notes = Console(stderr=True)
Command = Callable[..., None]


def common(command: Command) -> Command:
    """The options of both models."""
    for option in reversed(
        (
            click.option(
                "--adapted", type=EXISTING, multiple=True, help="A checkpoint of `edgedec adapt`."
            ),
            click.option(
                "--format", "quant", type=click.Choice(["fp32", "cb4", "int8"]), default="fp32"
            ),
            click.option("--depth", "depths", multiple=True, help="Only this, a NAME or setting."),
            click.option("--timed", default=40, help="Inputs that are timed."),
            click.option("--rounds", "-r", default=5),
            click.option("--threads", "-t", default=1),
            click.option(
                "--work", type=click.Path(path_type=Path), default=Path("build/depth"),
                help="Where bundles are written.",
            ),
            click.option(
                "--own-cuts", is_flag=True, help="Export for every setting, not a stage per layer."
            ),
            click.option("--keep", is_flag=True, help="Do not export existing bundles again."),
            click.option("--json", "json_file", type=click.Path(path_type=Path)),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measure depth policies."""


@main.command("g2p")
@click.option("--dictionary", type=EXISTING, required=True, help="CMUdict.")
@click.option("--limit", default=6375, help="Words of its test part.")
@common
def g2p(dictionary: Path, limit: int, **options: Any) -> None:
    """Word errors and milliseconds per word of the built-in model."""
    run(CHECKPOINTS / "g2p", policies.G2P, lambda t: cases.g2p(t, dictionary, limit), **options)


@main.command("lm")
@click.option("--checkpoint", type=EXISTING, required=True, help="A decoder-only model.")
@click.option("--text", type=EXISTING, required=True, help="Gzipped text for it.")
@click.option("--limit", default=100, help="Prompts.")
@common
def language_model(checkpoint: Path, text: Path, limit: int, **options: Any) -> None:
    """Agreement and milliseconds per token of a language model."""
    run(checkpoint, policies.LM, lambda t: cases.language_model(t, text, limit), **options)


def run(
    checkpoint: Path,
    texts: tuple[str, ...],
    make_case: Callable[[Tokenizer], cases.Case],
    *,
    adapted: tuple[Path, ...],
    quant: str,
    depths: tuple[str, ...],
    timed: int,
    rounds: int,
    threads: int,
    work: Path,
    own_cuts: bool,
    keep: bool,
    json_file: Path | None,
) -> None:
    """Export, measure, print."""
    before = machine()
    plain = edgedec.load(export(checkpoint, work, quant, (), keep=keep), threads=threads)
    full = make_policy(FULL, plain.bundle.manifest)
    subjects = [Subject(checkpoint.name, "full, one stage", full, plain)]
    case = make_case(Tokenizer.open(plain.bundle.path("tokenizer.json")))
    for path in (checkpoint, *adapted):
        config = json.loads((path / "config.json").read_text())
        names = policies.EXPORTED if path == checkpoint else tuple(config["edgedec"]["depth"])
        bundle = export(path, work, quant, ("--stages", "all", *asked(names)), keep=keep)
        generator = edgedec.load(bundle, threads=threads)
        own = texts if path == checkpoint else tuple(settings(names))
        chosen = [text for text in own if not depths or text.partition(":")[0] in depths]
        chosen += [text for text in depths if ":" in text and path == checkpoint]
        for text in (FULL, *chosen):
            try:
                if own_cuts and text != FULL:
                    bundle = export(path, work, quant, asked((text,)), keep=keep)
                    generator = edgedec.load(bundle, threads=threads)
                policy = make_policy(text, generator.bundle.manifest)
            except (InputError, subprocess.CalledProcessError) as error:  # noqa: PERF203
                notes.print(f"{path.name}: {text} is left out: {error}", highlight=False)
            else:
                subjects.append(Subject(path.name, text, policy, generator))
    outcomes = measure(
        subjects,
        case,
        timed=min(timed, len(case.sources)),
        rounds=rounds,
        progress=lambda what: notes.print(what, highlight=False),
    )
    judged = list(verdicts(outcomes, task=case.rate is not None))
    if json_file is not None:
        report = {
            "machine": before,
            "command": sys.argv,
            "format": quant,
            "threads": threads,
            "inputs": len(case.sources),
            "timed": timed,
            "rounds": rounds,
            "results": [asdict(outcome) for outcome in outcomes],
            "bars": [{**asdict(verdict), "met": verdict.met} for verdict in judged],
        }
        json_file.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{case.name} {quant}, {len(case.sources)} inputs, {threads} thread(s)\n")
    print("\n".join([*table(outcomes, case), "", *bars(judged)]))


def settings(names: tuple[str, ...]) -> Iterator[str]:
    """What an adapted checkpoint is measured with: policies that it was made for."""
    for name in names:
        if name in policies.ADAPTED:
            yield name
            yield from (f"{name}:{values}" for values in policies.ADAPTED[name])


def asked(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Options of an export for policies."""
    return tuple(part for text in texts for part in ("--depth", text))


def export(
    checkpoint: Path, work: Path, quant: str, options: tuple[str, ...], *, keep: bool
) -> Path:
    """A bundle; without options one that needs nothing for depth: one stage."""
    kind = re.sub(r"[^\w.=,]+", "-", "".join(options)) or "-one-stage"
    out = work / f"{checkpoint.name}-{quant}{kind}"
    if keep and out.exists():
        return out
    shutil.rmtree(out, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("edgedec")), "export", str(checkpoint)]
    command += ["-o", str(out), "--no-verify", *options]
    command += [] if quant == "fp32" else ["--quant", quant]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def table(outcomes: list[Outcome], case: cases.Case) -> list[str]:
    """Markdown, as the documents have it; times of a task are per input, of a text per token."""
    unit = "token" if case.rate is None else "word"
    columns = ("checkpoint", "depth", case.measure, "agreement", "identical", "layers", "accepted")
    rows = [f"| {' | '.join((*columns, f'ms per {unit}', 'x', 'x whole'))} |", "|" + "---|" * 10]
    for o in outcomes:
        cells = (
            o.checkpoint,
            f"`{o.depth}`",
            "" if o.errors is None else f"{o.errors:.2f}",
            f"{o.agreement:.3f}",
            f"{o.identical:.3f}",
            f"{o.layers:.2f}",
            "" if o.acceptance is None else f"{o.acceptance:.2f}",
            f"{o.decode_ms if case.rate is None else o.input_ms:.3f}",
            f"{o.decode_x:.2f}",
            f"{o.whole_x:.2f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def bars(judged: list[Verdict]) -> list[str]:
    """Markdown."""
    rows = ["| bar | by | figure | at least | |", "|---|---|---|---|---|"]
    for v in judged:
        met = "met" if v.met else "missed"
        rows.append(f"| {v.bar} | `{v.depth}` | {v.value:.3f} | {v.limit:g} | {met} |")
    return rows


if __name__ == "__main__":
    main()
