"""LoRA-Drop: what a layer adds to its last full output where it is not run (arXiv 2601.02569).

As in the released code, adapters alone are trained in one pass: a position between two refreshes
gets the layer's output at the refresh before it, plus a low-rank correction that reads the layer's
input there; attention sees keys and values of all positions. On demand LoRA of the decoder's
products (arXiv 2106.09685) is trained with them, which the source does not do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedec.adapt.actions import action_table, at_positions, follow
from edgedec.adapt.batches import Feed
from edgedec.adapt.lora import fresh, trainable
from edgedec.adapt.losses import distilled
from edgedec.adapt.objective import Setup, Trained, full_depth
from edgedec.adapt.twin import Source
from edgedec.runtime.depth.lora_drop import LoraDrop as Policy

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


class LoraDrop:
    """Adapters of droppable layers."""

    def __init__(self, setup: Setup) -> None:
        assert isinstance(setup.policy, Policy)
        self._twin, self._policy = setup.twin, setup.policy
        spec = setup.twin.spec
        layers = setup.policy.droppable(spec.decoder.layers)
        sizes = {str(layer): (spec.d_model, spec.d_model) for layer in layers}
        made = fresh(sizes, setup.rank, setup.alpha, setup.seed, setup.twin.device)
        self._layers = {int(name): low for name, low in made.items()}
        self._lora = setup.lora() if setup.with_lora else {}
        self._config = {
            "drop_cycle": setup.policy.cycle,
            "lora_rank": setup.rank,
            "lora_alpha": setup.alpha,
        }

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
        return Trained(lora=self._lora, layers=self._layers, config=self._config)
