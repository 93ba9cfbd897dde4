"""What ways to choose codes cost: layers, predictions, tasks; and whether ours keeps its bars.

Every method of `edgedec quantize --compare` at 2, 3 and 4 bits, on up to three models:

    python benchmarks/jlcm.py --dictionary cmudict.txt.gz --lm lm-layerskip --text heldout.txt.gz
        --translation ../out/translation/final --data multi30k

The dictionary is CMUdict for the built-in g2p model; `examples/translation` makes the translator.
The data is not in the repository; a model whose data is not given is left out. Exits with 1 if a
bar is missed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from codes import cases
from codes.bars import Verdict, verdicts
from codes.measure import FLOAT, Measured, Subject
from comparison.machine import machine
from rich.console import Console
from rich.table import Table

from edgedec.builtin import builtin_checkpoint
from edgedec.quantize.method import Settings
from edgedec.quantize.methods import METHODS

REFERENCE = "rtn-block32"
EXISTING = click.Path(exists=True, path_type=Path)
notes = Console(stderr=True)
console = Console(width=140)


@click.command(context_settings={"show_default": True})
@click.option("--g2p", type=EXISTING, help="Its checkpoint.  [default: the built-in one]")
@click.option("--dictionary", type=EXISTING, help="CMUdict, for g2p.")
@click.option("--words", default=6375, help="Of its test part, for error rates.")
@click.option("--lm", type=EXISTING, help="A decoder-only checkpoint.")
@click.option("--text", type=EXISTING, help="Gzipped text for it: 200 KB calibrate.")
@click.option("--translation", type=EXISTING, help="Checkpoint of examples/translation.")
@click.option("--data", type=EXISTING, help="Folder with Multi30k, for it.")
@click.option("--bits", type=click.Choice(["2", "3", "4"]), multiple=True, default=["2", "3", "4"])
@click.option(
    "--method", "methods", type=click.Choice([*METHODS]), multiple=True, default=[*METHODS]
)
@click.option("--tokens", default=8192, help="To calibrate on.")
@click.option("--evaluation-tokens", default=30720, help="To measure divergences on.")
@click.option("--threads", type=int, default=os.cpu_count())
@click.option("--seed", default=0)
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
def main(
    bits: Sequence[str],
    methods: Sequence[str],
    tokens: int,
    evaluation_tokens: int,
    threads: int,
    seed: int,
    as_json: bool,
    **given: object,
) -> None:
    """Measure methods side by side, and hold ours against its bars."""
    before = machine()
    measured: list[Measured] = []
    judged: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="edgedec-jlcm-") as scratch:
        for case in _cases(Path(scratch), **given):  # type: ignore[arg-type]
            with Subject(
                case, tokens, evaluation_tokens, Settings(seed=seed), threads, _progress
            ) as subject:
                original = subject.original()
                measured.append(original)
                for width in map(int, bits):
                    results = {FLOAT: original}
                    results |= {
                        m.method: m for m in subject.quantized(width, methods or [*METHODS])
                    }
                    measured += [m for m in results.values() if m is not original]
                    judged += verdicts(case.name, width, results)
                    if not as_json:
                        console.print(table(width, list(results.values())))
    if as_json:
        report = {
            "machine": before,
            "threads": threads,
            "tokens": tokens,
            "evaluation_tokens": evaluation_tokens,
            "seed": seed,
            "results": [asdict(m) for m in measured],
            "bars": [{**asdict(v), "met": v.met} for v in judged],
        }
        click.echo(json.dumps(report, indent=1))
    else:
        console.print(bars_table(judged))
    sys.exit(1 if any(v.binding and not v.met for v in judged) else 0)


def _cases(
    folder: Path,
    g2p: Path | None,
    dictionary: Path | None,
    words: int,
    lm: Path | None,
    text: Path | None,
    translation: Path | None,
    data: Path | None,
) -> Iterator[cases.Case]:
    """The models whose data was given."""
    if dictionary is not None:
        checkpoint = g2p or builtin_checkpoint("g2p")
        assert checkpoint is not None
        yield cases.g2p(checkpoint, dictionary, words, folder)
    if lm is not None and text is not None:
        yield cases.language_model(lm, text, folder)
    if translation is not None and data is not None:
        yield cases.translation(translation, data, folder)


def table(bits: int, results: Sequence[Measured]) -> Table:
    """One model at one number of bits; in brackets what a figure is of the reference's."""
    reference = next((m for m in results if m.method == REFERENCE), None)
    error, kl = (None, None) if reference is None else (reference.output_error, reference.kl)
    result = Table(
        title=f"{results[0].case}, {bits} bits",
        caption=f"in brackets: times that of {REFERENCE}",
        title_justify="left",
    )
    scores = list(results[0].scores)
    columns = ("method", "bits/weight", "layer error", "KL", "same token", "perplexity")
    for i, column in enumerate((*columns, *scores, "s")):
        result.add_column(column, justify="right" if i else "left", no_wrap=True)
    for m in results:
        result.add_row(
            m.method,
            f"{m.bits_per_weight:.3f}",
            _beside(m.output_error, error),
            _beside(m.kl, kl),
            f"{m.agreement:.2%}",
            "" if m.perplexity is None else f"{m.perplexity:.2f} (x {m.perplexity_ratio:.3f})",
            *(f"{m.scores[name]:.2f}" for name in scores),
            f"{m.seconds:.1f}",
        )
    return result


def bars_table(judged: Sequence[Verdict]) -> Table:
    """Every bar."""
    result = Table(title="bars", title_justify="left")
    for column in ("model", "bits", "figure", "value", "at most", ""):
        result.add_column(column, no_wrap=True)
    for v in judged:
        verdict = "met" if v.met else "missed"
        result.add_row(
            v.case,
            str(v.bits),
            v.bar,
            f"{v.value:.3f}",
            f"{v.limit:g}",
            verdict if v.binding else f"{verdict}, for information",
        )
    return result


def _beside(value: float, reference: float | None) -> str:
    return f"{value:.4f} ({value / reference:.2f})" if reference else f"{value:.4f}"


def _progress(what: str, part: float) -> None:
    if part in (0.0, 1.0):
        notes.print(f"{what}: {part:.0%}")


if __name__ == "__main__":
    main()
