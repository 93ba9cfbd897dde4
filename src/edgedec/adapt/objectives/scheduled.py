"""SkipDecode and other schedules: LoRA under the layers that run at every position.

SkipDecode's authors fine-tune the whole model under its schedule (arXiv 2307.02628); here the base
stays frozen and all products of the decoder get corrections of low rank (arXiv 2106.09685).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedec.adapt.actions import action_table, at_positions, follow
from edgedec.adapt.batches import Feed
from edgedec.adapt.lora import trainable
from edgedec.adapt.losses import distilled
from edgedec.adapt.objective import Setup, Trained, full_depth
from edgedec.adapt.twin import LowRank, Source

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


class Scheduled:
    """Policies whose layers depend on the step only.

    Args:
        setup: what to train for.
        lora: corrections of products; by default of all in the decoder.
        layers: corrections of layers that are not run, for schedules with low-rank steps.
    """

    def __init__(
        self,
        setup: Setup,
        lora: dict[str, LowRank] | None = None,
        layers: dict[int, LowRank] | None = None,
    ) -> None:
        self._twin, self._policy = setup.twin, setup.policy
        self._lora = setup.lora() if lora is None else lora
        self._layers = layers or {}

    def trainable(self) -> dict[str, Tensor]:
        """See `Objective`."""
        adapters = {f"layer.{layer}": low for layer, low in self._layers.items()}
        return trainable(adapters, self._lora)

    def phases(self) -> tuple[float, ...]:
        """See `Objective`."""
        return (0.0, 1.0)

    def loss(self, feed: Feed, source: Source | None, done: float) -> Tensor:  # noqa: ARG002
        """See `Objective`."""
        teacher = self._twin.head(full_depth(self._twin, feed, source)[-1])
        return distilled(self.predictions(feed, source)[0], teacher, feed)

    def predictions(self, feed: Feed, source: Source | None) -> list[Tensor]:
        """See `Objective`."""
        positions = feed.target.shape[1]
        table = action_table(self._policy, self._twin.spec.decoder.layers, positions)
        hook = follow(at_positions(table, feed.prompt, positions), self._layers)
        states = self._twin.decode(feed.target, source, adapters=self._lora, hook=hook)
        return [self._twin.head(states[-1])]

    def trained(self) -> Trained:
        """See `Objective`."""
        return Trained(lora=self._lora)
