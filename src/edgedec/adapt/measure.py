"""How good a policy's predictions are on samples that were not trained on."""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.adapt.batches import Batches
from edgedec.adapt.objective import Objective, full_depth
from edgedec.adapt.twin import Twin


@dataclass(frozen=True)
class Measured:
    """Means over held-out tokens.

    Attributes:
        loss: of the objective.
        agreement: tokens that the policy and the unchanged model at full depth both choose, the
            tokens before them being the text's.
        tokens: as many were compared.
    """

    loss: float
    agreement: float
    tokens: int


def measure(twin: Twin, objective: Objective, batches: Batches) -> Measured:
    """Measure on every sample once."""
    import torch

    loss = same = 0.0
    tokens = 0
    with torch.no_grad():
        for feed in batches.all():
            source = twin.encode(feed.source, feed.source_mask)
            count = int(feed.counted.sum())
            loss += count * float(objective.loss(feed, source, 1.0))
            wanted = twin.head(full_depth(twin, feed, source)[-1]).argmax(-1)
            given = objective.predictions(feed, source)
            found = sum(int((g.argmax(-1) == wanted)[feed.counted].sum()) for g in given)
            same += found / len(given)
            tokens += count
    return Measured(loss / max(tokens, 1), same / max(tokens, 1), tokens)
