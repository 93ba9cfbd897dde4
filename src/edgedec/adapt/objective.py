"""What an objective is: which parameters are trained, by which loss, and what is kept of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edgedec.adapt.batches import Feed
from edgedec.adapt.lora import fresh
from edgedec.adapt.twin import LowRank, Source, Twin, modules
from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Needs
from edgedec.runtime.depth.options import describe
from edgedec.runtime.depth.plan import Policy

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


@dataclass(frozen=True, eq=False)
class Setup:
    """What an objective begins with.

    Attributes:
        twin: the frozen model.
        policy: what it is adapted to.
        rank: of low-rank corrections.
        alpha: they are scaled by alpha / rank.
        seed: of everything random.
        with_lora: correct the decoder's products where the method itself does not.
        left_alone: modules of a layer whose rows or columns stand in another order than the
            checkpoint's: they get no corrections, which could not be stored as they are.
    """

    twin: Twin
    policy: Policy
    rank: int
    alpha: float
    seed: int
    with_lora: bool = False
    left_alone: frozenset[str] = frozenset()

    def lora(self) -> dict[str, LowRank]:
        """Fresh corrections of the decoder's products."""
        sizes = {
            name: size
            for name, size in modules(self.twin.spec).items()
            if name.split(".", 2)[2] not in self.left_alone
        }
        return fresh(sizes, self.rank, self.alpha, self.seed, self.twin.device)


@dataclass(frozen=True, eq=False)
class Trained:
    """What goes into the checkpoint.

    Attributes:
        lora: product of the decoder -> correction, to be stored as a PEFT adapter.
        layers: decoder layer -> LoRA-Drop adapter.
        tensors: other tensors by their name in the checkpoint.
        config: keys of ``config.json``.
    """

    lora: Mapping[str, LowRank] = field(default_factory=dict)
    layers: Mapping[int, LowRank] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


class Objective(Protocol):
    """A loss for one kind of policy. The base stays frozen: it is the teacher, too."""

    def trainable(self) -> dict[str, Tensor]:
        """Parameters by name; those that a loss does not use stay as they are."""

    def phases(self) -> tuple[float, ...]:
        """Where phases of training begin and the last one ends, as fractions: ``(0, 1)`` is one.

        The learning rate rises and falls in each.
        """

    def loss(self, feed: Feed, source: Source | None, done: float) -> Tensor:
        """The loss of a batch when a fraction of the training is done; 1 is the last phase's."""

    def predictions(self, feed: Feed, source: Source | None) -> list[Tensor]:
        """Logits ``[B, T, vocab]`` that the policy would choose from; one for every exit."""

    def trained(self) -> Trained:
        """What was learned."""


KINDS = {
    "skipdecode": "scheduled:Scheduled",
    "unified": "scheduled:Scheduled",
    "d3": "scheduled:Scheduled",
    "lora-drop": "lora_drop:LoraDrop",
    "first": "first:First",
    "early-exit": "exits:Exits",
    "free": "exits:Exits",
    "layerskip": "exits:Exits",
    "del": "exits:Exits",
}
"""Policy -> module and class of its objective, in `edgedec.adapt.objectives`."""
CLASSIFIER = "confidence:Confidence"
"""The objective of policies that ask a classifier (``measure=meta``)."""


def check_trainable(policy: Policy, layers: int) -> None:
    """Refuse a policy that would not use what is trained for it.

    Args:
        policy: with its parameters.
        layers: of the decoder.

    Raises:
        InputError: it needs no training, it runs full depth anyway, or this decoder cannot do it.
    """
    if policy.name not in KINDS:
        raise InputError(
            f"--depth {policy.name} needs no training: adapt for one of {', '.join(KINDS)}, or "
            "export the checkpoint as it is."
        )
    # What never leaves out a layer asks for no part of a bundle.
    if policy.needs(layers) == Needs():
        raise InputError(
            f"--depth {describe(policy)} always runs all {layers} layers of this decoder: there is "
            "nothing to train, give parameters with which some are left out."
        )


def objective_for(setup: Setup) -> Objective:
    """The objective of the setup's policy, which `check_trainable` has let pass."""
    name = setup.policy.name
    asks = getattr(setup.policy, "measure", None) == "meta"
    module, _, attribute = (CLASSIFIER if asks else KINDS[name]).partition(":")
    made: Objective = getattr(
        importlib.import_module(f"edgedec.adapt.objectives.{module}"), attribute
    )(setup)
    return made


def full_depth(twin: Twin, feed: Feed, source: Source | None) -> list[Tensor]:
    """The teacher's hidden states, see `Twin.decode`."""
    import torch

    with torch.no_grad():
        return twin.decode(feed.target, source)
