"""Early exits: LoRA that lets the head read what stands after every exit.

The loss is layer-weighted as in CALM (arXiv 2207.07061), LayerSkip (arXiv 2404.16710) and FREE
(arXiv 2310.05424): deeper exits count more. Full depth keeps its own term, so that it stays what it
was: self-speculation verifies with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedec.adapt.batches import Feed
from edgedec.adapt.lora import trainable
from edgedec.adapt.losses import distilled
from edgedec.adapt.objective import Setup, Trained, full_depth
from edgedec.adapt.twin import Source
from edgedec.errors import InputError
from edgedec.runtime.depth.plan import Policy

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

FULL = 1.0
"""Weight of full depth's divergence from the teacher, beside 1 for all exits together."""


class Exits:
    """Policies that read the head below the last layer."""

    def __init__(self, setup: Setup) -> None:
        self._twin = setup.twin
        spec = setup.twin.spec
        self.exits = exits_of(setup.policy, spec.decoder.layers)
        self._lora = setup.lora()

    def trainable(self) -> dict[str, Tensor]:
        """See `Objective`."""
        return trainable(self._lora)

    def phases(self) -> tuple[float, ...]:
        """See `Objective`."""
        return (0.0, 1.0)

    def loss(self, feed: Feed, source: Source | None, done: float) -> Tensor:  # noqa: ARG002
        """See `Objective`."""
        teacher = self._twin.head(full_depth(self._twin, feed, source)[-1])
        states = self._twin.decode(feed.target, source, adapters=self._lora)
        loss = FULL * distilled(self._twin.head(states[-1]), teacher, feed, 1.0)
        weights = sum(self.exits)
        for layer in self.exits:
            loss = loss + layer / weights * distilled(self._twin.head(states[layer]), teacher, feed)
        return loss

    def predictions(self, feed: Feed, source: Source | None) -> list[Tensor]:
        """See `Objective`: one for every exit."""
        states = self._twin.decode(feed.target, source, adapters=self._lora)
        return [self._twin.head(states[layer]) for layer in self.exits]

    def trained(self) -> Trained:
        """See `Objective`."""
        return Trained(lora=self._lora)


def exits_of(policy: Policy, layers: int) -> tuple[int, ...]:
    """Layers below the exits that a policy uses, without the decoder's end.

    Raises:
        InputError: it has none, or one that the decoder does not have.
    """
    policy.needs(layers)  # raises what is wrong with them
    given = getattr(policy, "exit", None) or getattr(policy, "exits", None)
    chosen = (given,) if isinstance(given, int) else tuple(given or range(1, layers))
    chosen = tuple(layer for layer in chosen if layer >= getattr(policy, "min", 1))
    if not chosen:
        raise InputError(
            f"--depth {policy.name}: a decoder of {layers} layers has no such exit to train for."
        )
    return chosen
