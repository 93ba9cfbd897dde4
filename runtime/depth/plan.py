"""What a depth policy and the decode loop say to each other.

A policy is a frozen set of parameters. For every batch it starts a *planner*, a small state machine
without sessions or weights: the loop asks it for a `Plan`, carries it out, and asks again with the
`Signals` of what was seen. So a policy is tested by writing down what it sees and what it plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgedec.runtime.depth.clock import Clock
    from edgedec.runtime.depth.layout import Layout, Needs

Variant = Literal["full", "fill", "low-rank"]
"""How a stage treats a position: all of its layers; keys and values only, the hidden state passing
unchanged (state propagation, arXiv 2207.07061); keys and values, and the hidden state of the anchor
step with a low-rank correction (arXiv 2601.02569)."""
Measure = Literal["softmax_diff", "softmax_max", "state", "meta"]
"""Confidence at an exit: difference of the two highest probabilities; the highest; cosine of the
hidden states before and after the last stage (-1 after the first); a trained classifier of the
hidden state."""
Then = Literal["choose", "look", "draft", "verify"]


@dataclass(frozen=True)
class Pass:
    """One stage for the positions that are on their way.

    Attributes:
        stage: its index.
        variant: what it does with them.
        rows: which rows it counts for, None for all; the others keep their hidden state, and write
            nothing to its caches.
    """

    stage: int
    variant: Variant = "full"
    rows: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """What to run next, and what then.

    The first pass takes the step's new tokens (stage 0), or goes on where the last plan of the same
    step stopped; after a plan with ``wait``, with what waits before its stage. Where positions of
    earlier steps wait before a stage, it takes them along.

    Attributes:
        passes: stages in order.
        then: ``choose``: the search chooses each row's next token from the head at the last
            position, and the step ends. ``look``: the loop reports ``measure`` of each row's last
            position and asks for another plan of the same step. ``draft`` (one row): a copy of the
            search chooses a token from the head; it is the next plan's new token, and nothing is
            decided. ``verify`` (one row): the head scores every position since the last decided
            token; the search accepts drafts as long as it chooses the same itself, and one token
            of its own; caches forget the rest, and the step ends.
        behind: what becomes of positions that wait before a stage: ``full`` takes them through it
            together with the new one; ``fill`` writes their keys and values only.
        wait: the positions that were passed wait before the stage after the last one, instead of
            skipping the rest for good. Where the plan has no passes: those of the plans before it.
        measure: with ``look``, what to report; with ``draft``, report the drafted token's
            probability if this is ``softmax_max``.
        draft: with ``verify``, tokens to be fed together with the last decided one (drafts that no
            stage computed); those beyond the length limit are left out.
        shadow: with ``verify``, stages after which the head is read at every position of the round
            too (arXiv 2504.05598); the round's drafts must have been planned with the same.
    """

    passes: tuple[Pass, ...]
    then: Then = "choose"
    behind: Variant = "full"
    wait: bool = False
    measure: Measure | None = None
    draft: tuple[int, ...] = ()
    shadow: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Signals:
    """What a planner may know; what does not apply is None.

    Attributes:
        confidence: float32 ``[rows]``, after ``look``; rows that have ended say 1.
        routers: float32 ``[rows, layers]``, at the first step after the prompt: each layer's mean
            score over it; 1 for layers without a router.
        token: the drafted token, after ``draft``.
        probability: of the drafted token, where the plan asked for it.
        ended: after ``draft``: nothing may follow this token (end of sequence, or length limit).
        tokens: what the last step decided, first row (one token; after ``verify`` one or more);
            at the first step what followed the prompt.
        drafted: after ``verify``, how many drafts there were,
        accepted: and how many of them were right.
        targets: int64 ``[positions]``, after ``verify``: what full depth chose after each position
            of the round up to and including the first rejected draft's (accepted + 1 entries).
        shadow_tokens: int64 ``[len(shadow), positions]``, greedy choices after these stages at the
            positions of ``targets``,
        shadow_probabilities: float32, and their probabilities.
        clock: measured seconds of stages and head.
    """

    confidence: NDArray[np.float32] | None = None
    routers: NDArray[np.float32] | None = None
    token: int | None = None
    probability: float | None = None
    ended: bool = False
    tokens: tuple[int, ...] = ()
    drafted: int = 0
    accepted: int = 0
    targets: NDArray[np.int64] | None = None
    shadow_tokens: NDArray[np.int64] | None = None
    shadow_probabilities: NDArray[np.float32] | None = None
    clock: Clock | None = None


@dataclass(frozen=True)
class Request:
    """The batch that a planner is started for.

    Attributes:
        rows: decoder rows side by side.
        limit: the most tokens that any row may generate.
        sources: encoder's tokens of every input, None without an encoder.
        prompts: decoder's tokens of every input before the first generated one.
    """

    rows: int
    limit: int
    sources: Sequence[Sequence[int]] | None
    prompts: Sequence[Sequence[int]]


class Planner(Protocol):
    """Plans one batch. Step 0, the prompt, always runs in full and is not asked for."""

    def plan(self, step: int, signals: Signals) -> Plan:
        """The next plan.

        Args:
            step: from 1; stays the same until a plan has ended the step.
            signals: what the last plan showed.
        """


class Policy(Protocol):
    """A frozen dataclass whose fields are the policy's parameters.

    Its constructor raises InputError for parameters that no model could have.
    """

    name: ClassVar[str]
    one_row: ClassVar[bool]
    """Inputs are decoded one at a time, and not by beam search: rows would go different ways."""

    def needs(self, layers: int) -> Needs:
        """What a bundle with so many decoder layers must offer; raises InputError: impossible."""

    def start(self, layout: Layout, request: Request) -> Planner:
        """Begin a batch on a bundle that offers it."""
