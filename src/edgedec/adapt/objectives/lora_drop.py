"""LoRA-Drop: what a layer adds to its last full output where it is not run (arXiv 2601.02569).

As in the released code, adapters alone are trained in one pass: a position between two refreshes
gets the layer's output at the refresh before it, plus a low-rank correction that reads the layer's
input there; attention sees keys and values of all positions. On demand LoRA of the decoder's
products (arXiv 2106.09685) is trained with them, which the source does not do.
"""

from __future__ import annotations

from edgedec.adapt.lora import fresh
from edgedec.adapt.objective import Setup, Trained
from edgedec.adapt.objectives.scheduled import Scheduled
from edgedec.runtime.depth.lora_drop import LoraDrop as Policy


class LoraDrop(Scheduled):
    """Adapters of droppable layers, under a schedule that has low-rank steps."""

    def __init__(self, setup: Setup) -> None:
        assert isinstance(setup.policy, Policy)
        spec = setup.twin.spec
        sizes = {
            str(layer): (spec.d_model, spec.d_model)
            for layer in setup.policy.droppable(spec.decoder.layers)
        }
        made = fresh(sizes, setup.rank, setup.alpha, setup.seed, setup.twin.device)
        super().__init__(
            setup,
            lora=setup.lora() if setup.with_lora else {},
            layers={int(name): low for name, low in made.items()},
        )
        self._config = {
            "drop_cycle": setup.policy.cycle,
            "lora_rank": setup.rank,
            "lora_alpha": setup.alpha,
        }

    def trained(self) -> Trained:
        """See `Objective`."""
        return Trained(lora=self._lora, layers=self._layers, config=self._config)
