"""Train a small translator: ``torchrun --nproc-per-node 2 -m translation.train --help``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from g2p.average import WeightAverage
from g2p.losses import exit_loss
from g2p.model import ModelConfig
from g2p.optimizer import build_optimizers, learning_rate_factor
from g2p.parallel import Processes
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor

from translation.batches import batches, encode_pairs, pad_pairs
from translation.data import Split, load_split
from translation.model import Translator, save_translator
from translation.tokenizer import train_tokenizer

LOG_STEPS = 20
console = Console()


@dataclass(frozen=True)
class Options:
    """The options of the command line, which describes them."""

    data: Path
    out: Path
    steps: int
    minutes: float
    batch_size: int
    vocabulary: int
    d_model: int
    d_ff: int
    layers: int
    lr: float
    weight_decay: float
    warmup: int
    dropout: float
    smoothing: float
    average: float
    save_minutes: float
    seed: int
    threads: int
    resume: bool


class Trainer:
    """Everything a run consists of, and how far it is."""

    def __init__(self, options: Options, split: Split, tokenizer: Tokenizer) -> None:
        torch.manual_seed(options.seed)
        self.options, self.split, self.tokenizer = options, split, tokenizer
        self.processes = Processes()
        self.model = Translator(
            ModelConfig(
                vocab_size=tokenizer.get_vocab_size(),
                d_model=options.d_model,
                d_ff=options.d_ff,
                num_heads=options.d_model // ModelConfig.d_kv,
                num_layers=options.layers,
                num_decoder_layers=options.layers,
                dropout_rate=options.dropout,
            )
        )
        self.optimizers = build_optimizers(self.model, options.weight_decay)
        self.average = WeightAverage(self.model, options.average)
        self.step, self.seconds, self.loss = 0, 0.0, math.nan

    @property
    def progress(self) -> float:
        """How much of the schedule is over, 0 to 1: by steps or by time, whichever is further."""
        by_time = self.seconds / 60 / self.options.minutes
        return max(self.step / self.options.steps, self.processes.agree(by_time))

    def run(self) -> None:
        """Train to the end of the schedule, saving every ``save_minutes``."""
        pairs = encode_pairs(self.split.train, self.tokenizer)
        stream = batches(pairs, self.options.batch_size, self.options.seed)
        for _ in range(self.step):
            next(stream)
        torch.manual_seed(self.options.seed + 1000 * self.step + self.processes.rank)
        saved, before = self.seconds, time.monotonic() - self.seconds
        self.model.train()
        with Progress(
            TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.3f}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self.processes.first,
        ) as bar:
            task = bar.add_task("train", total=1.0, step=self.step, loss=self.loss)
            while (progress := self.progress) < 1:
                factor = learning_rate_factor(self.step, progress, self.options.warmup)
                self._train_step(*pad_pairs(next(stream)), self.options.lr * factor)
                self.seconds = time.monotonic() - before
                bar.update(task, completed=progress, step=self.step, loss=self.loss)
                if not self.processes.first:
                    continue
                if self.step % LOG_STEPS == 0:
                    console.print(f"step {self.step}  {self.seconds:.0f} s  loss {self.loss:.4f}")
                if self.seconds - saved > 60 * self.options.save_minutes:
                    saved = self.seconds
                    self.save_state()
                    self.export("snapshot")
        if self.processes.first:
            self.save_state()
            self.export("final")

    def _train_step(self, source: Tensor, target: Tensor, lr: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        loss, plain = exit_loss(
            self.model,
            self.processes.share(source),
            self.processes.share(target),
            [1.0],
            self.options.smoothing,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.step)
        self.step += 1
        self.loss = plain.item() if self.step == 1 else 0.98 * self.loss + 0.02 * plain.item()

    def export(self, name: str) -> None:
        """Write the averaged weights as a checkpoint and print their loss on ``valid``."""
        with self.average.applied():
            self.model.eval()
            loss = self._valid_loss()
            save_translator(self.options.out / name, self.model, self.tokenizer)
            self.model.train()
        console.print(f"{name} of step {self.step}: loss on valid {loss:.4f} per token")

    @torch.no_grad()
    def _valid_loss(self) -> float:
        pairs = encode_pairs(self.split.valid, self.tokenizer)
        total = tokens = 0.0
        for start in range(0, len(pairs), self.options.batch_size):
            source, target = pad_pairs(pairs[start : start + self.options.batch_size])
            _, loss = exit_loss(self.model, source, target, [1.0], 0.0)
            count = int((target != 0).sum())
            total, tokens = total + loss.item() * count, tokens + count
        return total / tokens

    def save_state(self) -> None:
        """Write all that ``load_state`` needs; an interrupted write leaves the old file."""
        partial = self.options.out / "state.partial"
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.weights,
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
        }
        torch.save(state, partial)
        partial.replace(self.options.out / "state.pt")

    def load_state(self) -> None:
        """Go on from the last ``save_state``."""
        state = torch.load(self.options.out / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average.weights = state["average"]
        self.step, self.seconds, self.loss = state["step"], state["seconds"], state["loss"]


def _tokenizer(options: Options, split: Split) -> Tokenizer:
    """A new one, or where training goes on the one that it began with: ids must stay the same."""
    path = options.out / "tokenizer.json"
    if options.resume:
        return Tokenizer.from_file(str(path))
    tokenizer = train_tokenizer((text for pair in split.train for text in pair), options.vocabulary)
    tokenizer.save(str(path))
    return tokenizer


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with Multi30k's files, plain or .gz.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--steps", default=1500, help="Length of the schedule in steps.")
@click.option("--minutes", default=math.inf, help="Length of the schedule in time, if shorter.")
@click.option("--batch-size", default=128, help="Pairs of a step, of all processes together.")
@click.option("--vocabulary", default=6000, help="Tokens of both languages.")
@click.option("--d-model", default=256, help="Multiple of 64, the size of a head.")
@click.option("--d-ff", default=768)
@click.option("--layers", default=3, help="Of the encoder, and of the decoder.")
@click.option("--lr", default=4e-3, help="Peak learning rate.")
@click.option("--weight-decay", default=0.1, help="Of the weight matrices only.")
@click.option("--warmup", default=100, help="Steps of linear warm-up.")
@click.option("--dropout", default=0.1)
@click.option("--smoothing", default=0.1, help="Label smoothing.")
@click.option("--average", default=0.99, help="Decay of the weights' moving average.")
@click.option("--save-minutes", default=5.0, help="Time between snapshots.")
@click.option("--seed", default=0)
@click.option("--threads", default=1, help="Of each process.")
@click.option("--resume", is_flag=True, help="Go on from the state in the output folder.")
def main(**options: object) -> None:
    """Train the model and write ``<out>/final``, a Hugging Face T5 folder in float16."""
    chosen = Options(**options)  # type: ignore[arg-type]
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    split = load_split(chosen.data)
    trainer = Trainer(chosen, split, _tokenizer(chosen, split))
    if chosen.resume:
        trainer.load_state()
    if trainer.processes.first:
        parameters = sum(p.numel() for p in trainer.model.parameters())
        console.print(f"{parameters:,} parameters, {len(split.train):,} pairs")
    trainer.run()


if __name__ == "__main__":
    main()
