"""FiRST: routers that read the prompt, then LoRA under the layers they chose (arXiv 2410.12513).

Step one trains the routers alone, every layer weighed with its router's score: h_out = p Layer(h) +
(1 - p) h. Step two keeps them and trains corrections of the decoder's products (arXiv 2106.09685)
under the hard choice that the runtime makes. What the sources do not give: a regulariser that
pushes scores to 0 or 1, here mean p (1 - p), and how skipping is rewarded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedec.adapt.batches import Feed
from edgedec.adapt.lora import trainable
from edgedec.adapt.losses import distilled
from edgedec.adapt.objective import Setup, Trained, full_depth
from edgedec.adapt.twin import Hook, Run, Source
from edgedec.runtime.depth.first import First as Policy

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

ROUTERS = 0.3
"""The part of training that is step one."""
DECISIVE = 0.01
"""Weight of the regulariser."""
SKIPPING = 0.3
"""Weight of the mean score, which rewards skipping where no budget is given."""
BUDGET = 10.0
"""Weight of the squared difference between the mean score and a budget's."""
BIAS = 1.0
"""Of fresh routers: all layers rather run."""


class First:
    """Routers of all layers that may be skipped, and LoRA."""

    def __init__(self, setup: Setup) -> None:
        import torch

        assert isinstance(setup.policy, Policy)
        self._twin, self._policy = setup.twin, setup.policy
        spec, device = setup.twin.spec, setup.twin.device
        self.layers = tuple(setup.policy.skippable(spec.decoder.layers))
        self._weight = {
            i: torch.zeros(1, spec.d_model, device=device, requires_grad=True) for i in self.layers
        }
        self._bias = {
            i: torch.full((1,), BIAS, device=device, requires_grad=True) for i in self.layers
        }
        self._lora = setup.lora()

    def trainable(self) -> dict[str, Tensor]:
        """See `Objective`."""
        return self._routers() | trainable(self._lora)

    def phases(self) -> tuple[float, ...]:
        """See `Objective`."""
        return (0.0, ROUTERS, 1.0)

    def loss(self, feed: Feed, source: Source | None, done: float) -> Tensor:
        """See `Objective`."""
        teacher = self._twin.head(full_depth(self._twin, feed, source)[-1])
        if done >= ROUTERS:
            return distilled(self.predictions(feed, source)[0], teacher, feed)
        scores: dict[int, Tensor] = {}
        states = self._twin.decode(feed.target, source, hook=self._soft(feed, source, scores))
        loss = distilled(self._twin.head(states[-1]), teacher, feed, 0.0)
        import torch

        every = torch.cat([scores[i] for i in self.layers])
        loss = loss + DECISIVE * (every * (1 - every)).mean()
        return loss + self._penalty(every.mean())

    def predictions(self, feed: Feed, source: Source | None) -> list[Tensor]:
        """See `Objective`: under the hard choice."""
        hook = self._hard(feed, source)
        states = self._twin.decode(feed.target, source, adapters=self._lora, hook=hook)
        return [self._twin.head(states[-1])]

    def trained(self) -> Trained:
        """See `Objective`."""
        return Trained(lora=self._lora, tensors=self._routers())

    def _routers(self) -> dict[str, Tensor]:
        weights = {f"router.{i}.weight": self._weight[i] for i in self.layers}
        return weights | {f"router.{i}.bias": self._bias[i] for i in self.layers}

    def _penalty(self, mean: Tensor) -> Tensor:
        """What running layers costs."""
        budget = self._policy.layers
        if budget is None:
            return SKIPPING * mean
        always = self._twin.spec.decoder.layers - len(self.layers)
        return BUDGET * (mean - (budget - always) / len(self.layers)) ** 2

    def _score(self, layer: int, x: Tensor, feed: Feed, source: Source | None) -> Tensor:
        """A router's score of every row ``[B]``."""
        import torch

        seen = x[:, : feed.prompt].mean(1) if source is None else source.mean
        return torch.sigmoid(seen @ self._weight[layer].T + self._bias[layer])[:, 0]

    def _soft(self, feed: Feed, source: Source | None, scores: dict[int, Tensor]) -> Hook:
        def hook(layer: int, x: Tensor, run: Run) -> Tensor:
            import torch

            y = run(x)
            if layer not in self._weight:
                return y
            scores[layer] = self._score(layer, x, feed, source)
            weighed = torch.lerp(x, y, scores[layer][:, None, None])
            return torch.cat([y[:, : feed.prompt], weighed[:, feed.prompt :]], 1)

        return hook

    def _hard(self, feed: Feed, source: Source | None) -> Hook:
        """Each row runs what its routers chose; the prompt runs everything.

        Decoder-only routers read the prompt's hidden states, which the choice does not change: a
        budget needs all of them before the first layer is skipped, so the prompt goes first.
        """
        import torch

        count = self._twin.spec.decoder.layers
        rows = feed.target.shape[0]
        scores = torch.ones(rows, count)

        def look(layer: int, x: Tensor, run: Run) -> Tensor:
            if layer in self._weight:
                scores[:, layer] = self._score(layer, x, feed, source).cpu()
            return run(x)

        with torch.no_grad():
            prompt = feed.target[:, : feed.prompt]
            self._twin.decode(prompt, source, adapters=self._lora, hook=look)
        mask = self._policy.mask(scores.numpy(), frozenset(self.layers))
        runs = torch.from_numpy(mask).to(feed.target.device)

        def hook(layer: int, x: Tensor, run: Run) -> Tensor:
            if runs[:, layer].all():
                return run(x)
            if not runs[:, layer].any():
                return torch.cat([run(x[:, : feed.prompt]), x[:, feed.prompt :]], 1)
            y = run(x)
            chosen = torch.where(runs[:, layer, None, None], y, x)
            return torch.cat([y[:, : feed.prompt], chosen[:, feed.prompt :]], 1)

        return hook
