"""Samples side by side as tensors, in an order that depends on the seed and the step only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedec.quantize.text.batches import Batch, make_batches
from edgedec.quantize.text.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


@dataclass(frozen=True, eq=False)
class Feed:
    """A batch on a device.

    Attributes:
        source: ``[B, S]``, None without an encoder.
        source_mask: ``[B, S]``, 1 for a token.
        target: decoder input ``[B, T]``.
        labels: ``[B, T]``, the token after each.
        counted: bool ``[B, T]``: positions whose prediction counts.
        prompt: tokens of every row before the first generated one; what follows is one step each.
    """

    source: Tensor | None
    source_mask: Tensor | None
    target: Tensor
    labels: Tensor
    counted: Tensor
    prompt: int


class Batches:
    """Batches of samples, for any step of training.

    Args:
        samples: with targets.
        tokens: a batch has about so many per side, padding included.
        pad: fills up shorter rows.
        start: the decoder's first input; None for a decoder-only model.
        seed: of the order.
        device: a torch device.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        tokens: int,
        pad: int,
        start: int | None,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._samples = samples
        self._tokens, self._pad, self._start = tokens, pad, start
        self._seed, self._device = seed, device
        self._epochs: tuple[list[Batch], int] = ([], -1)
        self._first = self._make(0)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._first)

    def at(self, step: int) -> Feed:
        """The batch of a step, from 0."""
        epoch, index = divmod(step, len(self))
        if self._epochs[1] != epoch:
            self._epochs = (self._first if epoch == 0 else self._make(epoch), epoch)
        batches = self._epochs[0]
        order = np.random.default_rng((self._seed, epoch, 1)).permutation(len(self))
        rng = np.random.default_rng((self._seed, step, 2))
        return self._feed(batches[int(order[index]) % len(batches)], rng)

    def all(self) -> Iterator[Feed]:
        """Every sample once."""
        for number, batch in enumerate(self._first):
            yield self._feed(batch, np.random.default_rng((self._seed, number, 3)))

    def _make(self, epoch: int) -> list[Batch]:
        """Batches of similar length; which samples meet differs from epoch to epoch."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._samples))
        chunk = max(64 * self._tokens // 16, 1)
        batches: list[Batch] = []
        for begin in range(0, len(order), chunk):
            chosen = [self._samples[i] for i in order[begin : begin + chunk].tolist()]
            batches += make_batches(chosen, pad=self._pad, start=self._start, tokens=self._tokens)
        return batches

    def _feed(self, batch: Batch, rng: np.random.Generator) -> Feed:
        import torch

        def put(array: Any) -> Any:
            return None if array is None else torch.from_numpy(array).to(self._device)

        # A text has no prompt: a random part of it is one, as users' prompts have any length.
        steps = batch.target.shape[1]
        prompt = 1 if self._start is not None else int(rng.integers(1, max(2, steps // 2)))
        counted = batch.target_mask.copy()
        counted[:, : prompt - 1] = False
        return Feed(
            put(batch.source),
            put(batch.source_mask),
            put(batch.target),
            put(batch.labels),
            put(counted),
            prompt,
        )
