"""How far predictions are from the teacher's and from the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedec.adapt.batches import Feed

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

TEACHER = 0.5
"""Weight of the divergence from the teacher; the rest is the text's cross-entropy."""


def distilled(logits: Tensor, teacher: Tensor, feed: Feed, weight: float = TEACHER) -> Tensor:
    """Divergence KL(teacher || student) and cross-entropy, means over the tokens that count.

    Args:
        logits: ``[B, T, vocab]`` of the student, and
        teacher: of the teacher.
        feed: with the labels.
        weight: of the divergence; the cross-entropy has the rest.
    """
    from torch.nn import functional

    kept = feed.counted
    student = functional.log_softmax(logits[kept], -1)
    entropy = functional.nll_loss(student, feed.labels[kept])
    if not weight:
        return entropy
    wanted = functional.log_softmax(teacher[kept], -1)
    divergence = functional.kl_div(student, wanted, reduction="batchmean", log_target=True)
    return weight * divergence + (1 - weight) * entropy
