"""Error rates of a checkpoint, whole and by exit layer: ``python -m g2p.evaluate --help``."""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from g2p.checkpoint import load_checkpoint
from g2p.data import load_split
from g2p.decode import predict
from g2p.metrics import ErrorRates, score


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--dict",
    "dictionary",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="CMUdict 0.7a, plain or gzip.",
)
@click.option("--split", "part", default="test", type=click.Choice(["valid", "test"]))
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures as JSON.")
@click.option("--threads", default=1)
def main(checkpoint: Path, dictionary: Path, part: str, out: Path | None, threads: int) -> None:
    """Decode a split greedily through every exit of a checkpoint, computing in float32."""
    torch.set_num_threads(threads)
    model, tokenizer = load_checkpoint(checkpoint)
    lexicon = getattr(load_split(dictionary), part)
    words, references = list(lexicon), list(lexicon.values())
    by_exit = {
        layer: score(predict(model, tokenizer, words, layer), references)
        for layer in track(range(1, model.config.num_decoder_layers + 1), "exits")
    }
    Console().print(table(by_exit))
    if out is not None:
        last = by_exit[model.config.num_decoder_layers]
        figures = {
            **last.to_dict(),
            "split": part,
            "by_exit_layer": {str(layer): rates.to_dict() for layer, rates in by_exit.items()},
        }
        out.write_text(json.dumps(figures, indent=2) + "\n")


def table(by_exit: dict[int, ErrorRates]) -> Table:
    """One row per exit layer, in percent."""
    result = Table("exit layer", "word error", "without stress", "phoneme error")
    for layer, rates in by_exit.items():
        result.add_row(
            str(layer),
            f"{rates.word_error_rate:.2%}",
            f"{rates.word_error_rate_without_stress:.2%}",
            f"{rates.phoneme_error_rate:.2%}",
        )
    return result


if __name__ == "__main__":
    main()
