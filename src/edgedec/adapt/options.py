"""What `edgedec adapt` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedec.errors import InputError

MOST_RANK = 4096


@dataclass(frozen=True)
class AdaptOptions:
    """Options of a training run.

    Attributes:
        depth: the policy with its parameters, as ``--depth`` takes them.
        text: the file to train on.
        rank: of low-rank corrections.
        alpha: they are scaled by alpha / rank; None: twice the rank.
        steps: of training; None: 1,000, or as many as ``minutes`` allow.
        minutes: of training instead; two runs then differ.
        batch_tokens: tokens of a batch, padding included.
        lr: highest learning rate.
        lora: with ``lora-drop``, train LoRA of the decoder's products, too.
        seed: of everything random.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.
        threads: of the CPU; None for all.
        resume: go on with a run that was interrupted.
        force: replace what was adapted before, and forget an interrupted run.
    """

    depth: str
    text: Path
    rank: int = 16
    alpha: float | None = None
    steps: int | None = None
    minutes: float | None = None
    batch_tokens: int = 2048
    lr: float = 1e-3
    lora: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise InputError("--steps and --minutes both say how long to train: give one.")
        # The negations refuse NaN too.
        for name, value, most in (
            ("rank", self.rank, MOST_RANK),
            ("alpha", self.scale, 1e6),
            ("steps", 1 if self.steps is None else self.steps, 10**9),
            ("minutes", 1 if self.minutes is None else self.minutes, 1e6),
            ("batch-tokens", self.batch_tokens, 1 << 24),
            ("lr", self.lr, 10.0),
        ):
            if not 0 < value <= most:
                least = "1 to" if isinstance(most, int) else "more than 0, up to"
                raise InputError(f"--{name} {value:g} is out of range: give {least} {most:,.12g}.")

    @property
    def scale(self) -> float:
        """Alpha."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def facts(self) -> dict[str, object]:
        """What the result depends on, besides the files; an interrupted run goes on with the same.

        Threads are not among them: with others the sums round differently, and that is all.
        """
        return {
            "depth": self.depth,
            "rank": self.rank,
            "alpha": self.scale,
            "steps": self.steps,
            "minutes": self.minutes,
            "batch_tokens": self.batch_tokens,
            "lr": self.lr,
            "lora": self.lora,
            "seed": self.seed,
        }
