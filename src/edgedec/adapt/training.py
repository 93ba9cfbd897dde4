"""The training loop: AdamW over what an objective trains, with a state that can go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedec.adapt.batches import Batches
from edgedec.adapt.objective import Objective
from edgedec.adapt.twin import Twin
from edgedec.errors import CheckpointError

RISE = 0.05
"""Part of a phase in which the learning rate rises; then it falls as a cosine."""
CLIP = 1.0
"""Largest norm of a gradient."""
BETAS = (0.9, 0.98)
SAVE_S = 30.0
"""Seconds between two states."""
SMOOTH = 0.95
"""Of the loss that is shown, what stays at a step."""

Report = Callable[[float, float], None]
"""Told the fraction done and the smoothed loss, after every step."""


@dataclass(frozen=True)
class Length:
    """How long to train: steps, or else minutes."""

    steps: int | None
    minutes: float | None

    def done(self, step: int, seconds: float) -> float:
        """The fraction that is done after so many steps and seconds."""
        if self.steps is not None:
            return step / self.steps
        assert self.minutes is not None
        return seconds / (60 * self.minutes)


class Training:
    """A run from wherever its state says.

    Batches depend on the step alone and nothing else is random, so parameters, the optimizer and
    the step are all there is to keep.

    Args:
        twin: the frozen model.
        objective: what is trained.
        batches: the text.
        length: of the run.
        lr: highest learning rate.
    """

    def __init__(
        self, twin: Twin, objective: Objective, batches: Batches, length: Length, lr: float
    ) -> None:
        import torch

        self._twin, self._objective, self._batches = twin, objective, batches
        self._length, self._lr = length, lr
        self._parameters = objective.trainable()
        self._trained = [p for p in self._parameters.values() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trained, lr=lr, betas=BETAS, weight_decay=0.0)
        self.step = 0
        self.seconds = 0.0
        self._shown = math.nan

    def run(self, state: Path, report: Report, stopped: Callable[[], bool]) -> None:
        """Train to the end.

        Args:
            state: the file to keep the state in.
            report: told after every step.
            stopped: asked after every step; once it says so, the state is kept.

        Raises:
            KeyboardInterrupt: it was stopped.
            CheckpointError: the loss is no number any more.
        """
        began = time.monotonic() - self.seconds
        saved = time.monotonic()
        while (done := self._length.done(self.step, self.seconds)) < 1:
            self._advance(done)
            self.seconds = time.monotonic() - began
            report(min(1.0, self._length.done(self.step, self.seconds)), self._shown)
            if stopped():
                self.save(state)
                raise KeyboardInterrupt
            if time.monotonic() - saved > SAVE_S:
                self.save(state)
                saved = time.monotonic()

    def save(self, path: Path) -> None:
        """Write the state; a crash on the way leaves the last one."""
        import torch

        partial = path.with_suffix(".partial")
        torch.save(
            {
                "parameters": {n: p.detach().cpu() for n, p in self._parameters.items()},
                "optimizer": self._optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "shown": self._shown,
            },
            partial,
        )
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: the file is damaged, or of another run.
        """
        import torch

        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(state["parameters"][name])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self._shown = float(state["shown"])
        except Exception as error:  # torch raises whatever the damaged file made it stumble over
            raise CheckpointError(
                f"the state of the interrupted run in {str(path)!r} cannot be used: begin again "
                "with --force."
            ) from error

    def _advance(self, done: float) -> None:
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * pace(self._objective.phases(), done)
        feed = self._batches.at(self.step)
        source = self._twin.encode(feed.source, feed.source_mask)
        loss = self._objective.loss(feed, source, done)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CheckpointError(
                f"the loss is {value} after {self.step} steps: use a smaller --lr."
            )
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._trained, CLIP)
        self._optimizer.step()
        self._shown = value if self.step == 0 else SMOOTH * self._shown + (1 - SMOOTH) * value
        self.step += 1


def pace(phases: tuple[float, ...], done: float) -> float:
    """The learning rate as a fraction of its highest, when a fraction of the training is done."""
    begin = max(border for border in phases[:-1] if border <= done)
    end = min(border for border in phases[1:] if border > begin)
    here = (done - begin) / (end - begin)
    # The first step of all has a rate, too.
    return min(1.0, (here + 0.01) / RISE) * 0.5 * (1 + math.cos(math.pi * here))
