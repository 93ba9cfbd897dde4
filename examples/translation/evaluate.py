"""How good a bundle translates: ``python -m translation.evaluate --help`` (no torch here)."""

from __future__ import annotations

import json
from pathlib import Path

import click

import edgedec
from edgedec.export.evaluate import scores
from translation.data import load_split


@click.command(context_settings={"show_default": True})
@click.argument("bundle", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with Multi30k's files, plain or .gz.",
)
@click.option("--split", "part", default="test", type=click.Choice(["valid", "test"]))
@click.option("--beams", default=1, help="1 is greedy.")
@click.option("--batch-size", default=32)
@click.option("--threads", default=1)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(
    bundle: str, data: Path, part: str, beams: int, batch_size: int, threads: int, as_json: bool
) -> None:
    """Translate a part of the data with what `edgedec export` or `quantize` made, and score it."""
    pairs = getattr(load_split(data), part)
    generator = edgedec.load(bundle, threads=threads)
    results = generator.generate(
        [source for source, _ in pairs],
        batch_size=batch_size,
        num_beams=beams,
        max_new_tokens=64,
    )
    texts = [(result.text or "").strip() for result in results]
    found = scores(texts, [target for _, target in pairs])
    figures = {score.name: score.value for score in found if score.name in ("BLEU", "chrF")}
    if as_json:
        click.echo(json.dumps({"split": part, "pairs": len(pairs), **figures}))
    else:
        click.echo("  ".join(f"{name} {value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
