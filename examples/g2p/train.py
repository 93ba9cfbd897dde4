"""Train the grapheme-to-phoneme model: ``torchrun --nproc-per-node 3 -m g2p.train --help``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from g2p.average import WeightAverage
from g2p.batches import batches, encode_pairs
from g2p.checkpoint import save_checkpoint
from g2p.data import Split, load_split
from g2p.decode import predict
from g2p.losses import exit_loss, exit_weights
from g2p.metrics import score
from g2p.model import G2PTransformer, ModelConfig
from g2p.optimizer import build_optimizers, learning_rate_factor
from g2p.parallel import Processes
from g2p.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

LOG_STEPS = 50
console = Console()


@dataclass(frozen=True)
class Options:
    """The options of the command line, which describes them."""

    dictionary: Path
    out: Path
    steps: int
    minutes: float
    batch_size: int
    d_model: int
    d_ff: int
    lr: float
    weight_decay: float
    warmup: int
    dropout: float
    smoothing: float
    exit_weight: float
    average: float
    save_minutes: float
    seed: int
    threads: int
    compile_layers: bool
    resume: bool


class Trainer:
    """Everything a run consists of, and how far it is."""

    def __init__(self, options: Options, split: Split, tokenizer: Tokenizer) -> None:
        torch.manual_seed(options.seed)
        self.options, self.split, self.tokenizer = options, split, tokenizer
        self.processes = Processes()
        self.model = G2PTransformer(
            ModelConfig(
                vocab_size=tokenizer.get_vocab_size(),
                d_model=options.d_model,
                d_ff=options.d_ff,
                num_heads=options.d_model // ModelConfig.d_kv,
                dropout_rate=options.dropout,
            )
        )
        self.optimizers = build_optimizers(self.model, options.weight_decay)
        self.average = WeightAverage(self.model, options.average)
        self.weights = exit_weights(self.model.config.num_decoder_layers, options.exit_weight)
        self.step, self.seconds, self.loss = 0, 0.0, math.nan

    @property
    def progress(self) -> float:
        """How much of the schedule is over, 0 to 1: by steps or by time, whichever is further."""
        by_time = self.seconds / 60 / self.options.minutes
        return max(self.step / self.options.steps, self.processes.agree(by_time))

    def run(self) -> None:
        """Train to the end of the schedule, saving every ``save_minutes``."""
        if self.options.compile_layers:
            for layer in [*self.model.encoder.layers, *self.model.decoder.layers]:
                layer.compile(dynamic=True)
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
                self._train_step(*next(stream), self.options.lr * factor)
                self.seconds = time.monotonic() - before
                bar.update(task, completed=progress, step=self.step, loss=self.loss)
                if not self.processes.first:
                    continue
                if self.step % LOG_STEPS == 0:
                    self._log()
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
        loss, last = exit_loss(
            self.model,
            self.processes.share(source),
            self.processes.share(target),
            self.weights,
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
        self.loss = last.item() if self.step == 1 else 0.98 * self.loss + 0.02 * last.item()

    def _log(self) -> None:
        console.print(
            f"step {self.step}  {self.seconds:.0f} s  loss of the last exit {self.loss:.4f}"
        )

    def export(self, name: str) -> None:
        """Write the averaged weights as a checkpoint and print its error rates on ``valid``."""
        with self.average.applied():
            self.model.eval()
            words = list(self.split.valid)
            predictions = predict(self.model, self.tokenizer, words)
            save_checkpoint(self.options.out / name, self.model, self.tokenizer)
            self.model.train()
        rates = score(predictions, list(self.split.valid.values()))
        console.print(f"{name} of step {self.step} on valid: {rates}")

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


@click.command(context_settings={"show_default": True})
@click.option(
    "--dict",
    "dictionary",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="CMUdict 0.7a, plain or gzip.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--steps", default=4000, help="Length of the schedule in steps.")
@click.option("--minutes", default=math.inf, help="Length of the schedule in time, if shorter.")
@click.option("--batch-size", default=512)
@click.option("--d-model", default=192, help="Multiple of 64, the size of a head.")
@click.option("--d-ff", default=512)
@click.option("--lr", default=4e-3, help="Peak learning rate.")
@click.option("--weight-decay", default=0.1, help="Of the weight matrices only.")
@click.option("--warmup", default=200, help="Steps of linear warm-up.")
@click.option("--dropout", default=0.1)
@click.option("--smoothing", default=0.05, help="Label smoothing.")
@click.option("--exit-weight", default=0.3, help="Loss weight of the early exits, times depth.")
@click.option("--average", default=0.998, help="Decay of the weights' moving average.")
@click.option("--save-minutes", default=5.0, help="Time between snapshots.")
@click.option("--seed", default=0)
@click.option("--threads", default=1, help="Of each process.")
@click.option("--compile/--no-compile", "compile_layers", default=True, help="torch.compile.")
@click.option("--resume", is_flag=True, help="Go on from the state in the output folder.")
def main(**options: object) -> None:
    """Train the model and write ``<out>/final``, a Hugging Face T5 folder in float16."""
    chosen = Options(**options)  # type: ignore[arg-type]
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    split = load_split(chosen.dictionary)
    trainer = Trainer(chosen, split, build_tokenizer(split.phonemes()))
    if chosen.resume:
        trainer.load_state()
    if trainer.processes.first:
        parameters = sum(p.numel() for p in trainer.model.parameters())
        console.print(f"{parameters:,} parameters, {len(split.train):,} words")
    trainer.run()


if __name__ == "__main__":
    main()
