"""DEL: self-speculation that finds its exit and its number of drafts (arXiv 2504.05598)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from edgedec.runtime.depth.acceptance import Acceptance, kind_of
from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.costs import Costs
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import all_stages, check_layers, check_range
from edgedec.runtime.depth.plan import Plan, Request, Signals

MARGIN = 1.1
"""Drafts must promise so many times the tokens per second of full depth: what the loop itself takes
for each of them is not measured, and on small models that is as much."""


@dataclass(frozen=True)
class Del:
    """Draft from the exit that promises most tokens per second, as long as drafts are worth it.

    After verification the head also reads the hidden states that every exit had in this round
    (shadow tokens): what each would have drafted, and how sure. Decayed counts of these estimate
    each exit's acceptance. What differs from the source:

    - Expected tokens are divided by measured seconds, head included, and not by layers.
    - Not to draft at all is a choice too, and the first.
    - Drafting stops where the next draft costs more seconds than the tokens that it promises. The
      source stops below a probability, half-way between the mean of drafts that held and of those
      that did not, whatever a draft costs. A draft that is not worth its own way through the
      layers is compared only, which costs nothing more.
    - Counts go on from text to text, where the source begins with each prompt's own; they decay
      more slowly, too (the source: 0.95).
    - All exits are read less and less often while the choice stays: each reading is a product with
      the vocabulary for every exit and position.

    Attributes:
        max: most drafts of a round.
        omega: decay of counts from round to round.
        interval: most rounds from one reading of all exits to the next.
        exits: layers that may be the exit; none given: wherever the bundle is cut. An export cuts
            after a quarter and a half of the layers then: the source tries all of them, but every
            cut costs all tokens something, and drafts from deeper exits hardly ever pay.
    """

    name: ClassVar[str] = "del"
    one_row: ClassVar[bool] = True

    max: int = 18
    omega: float = 0.998
    interval: int = 64
    exits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_range(
            self.name,
            max=(self.max, 1, 64),
            omega=(self.omega, 0, 1),
            interval=(self.interval, 1, None),
        )

    def needs(self, layers: int) -> Needs:
        """Cuts at the exits.

        Raises:
            InputError: an exit that the decoder does not have.
        """
        exits = self.exits or tuple(sorted({max(layers // part, 1) for part in (4, 2)}))
        check_layers(self.name, "exits", exits, 1, layers - 1)
        return Needs(cuts=frozenset(exits))

    def start(self, layout: Layout, request: Request) -> DelPlanner:  # noqa: ARG002
        """Begin a text.

        Raises:
            InputError: the decoder is not cut at all.
        """
        given = self.exits or tuple(first for first, _ in layout.stages[1:])
        check_layers(self.name, "exits", given or (1,), 1, layout.layers - 1 if given else 0)
        return DelPlanner(self, layout, tuple(layout.stage_from(layer) for layer in given))


@dataclass
class Learned:
    """What the rounds so far say, of this text and of those before it.

    Attributes:
        counts: of every exit's drafts.
        chosen: the exit that drafts, by its place among the exits; None: no drafts.
        mean: estimated probability that a draft of this exit holds,
        by_kind: and that one of a kind does.
        worth: seconds that a token takes now,
        feed: a draft on its way through the layers,
        head: and the choice of one.
        wait: rounds until all exits are read again,
        waited: and rounds between the last two readings.
    """

    counts: Acceptance
    chosen: int | None = None
    mean: float = 0.0
    by_kind: list[float] = field(default_factory=list)
    worth: float = 0.0
    feed: float = 0.0
    head: float = 0.0
    wait: int = 0
    waited: int = 0


@dataclass
class DelPlanner:
    """Learns from every round, and drafts as the last choice says.

    Attributes:
        policy: its parameters.
        layout: of the bundle.
        exits: stages below every candidate.
        learned: shared by all texts of a session, found again by its clock.
    """

    policy: Del
    layout: Layout
    exits: tuple[int, ...]
    learned: Learned = field(init=False)
    _step: int = 0
    _reads: bool = False
    _chain: float = 1.0
    _probabilities: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.learned = Learned(Acceptance(len(self.exits), self.policy.omega))
        everything = all_stages(self.layout)
        self._plain = everything
        shadows = {False: (), True: tuple(below - 1 for below in self.exits)}
        self._draft = {
            (reads, place): Plan(
                everything.passes[:below], "draft", wait=True, measure="softmax_max", shadow=shadow
            )
            for reads, shadow in shadows.items()
            for place, below in enumerate(self.exits)
        }
        self._verify = {
            reads: Plan(everything.passes, "verify", shadow=shadow)
            for reads, shadow in shadows.items()
        }
        self._finish = {
            (reads, place): Plan(everything.passes[below:], "verify", shadow=shadow)
            for reads, shadow in shadows.items()
            for place, below in enumerate(self.exits)
        }

    def plan(self, step: int, signals: Signals) -> Plan:
        """The next draft, or verification."""
        if step != self._step:
            if self._step:
                self._learn(signals)
            elif signals.clock is not None:
                self.learned = signals.clock.learned.setdefault(self.policy, self.learned)
            return self._begin(step)
        learned = self.learned
        assert learned.chosen is not None
        assert signals.probability is not None
        self._probabilities.append(signals.probability)
        if signals.ended:
            return self._finish[self._reads, learned.chosen]
        self._chain *= learned.by_kind[kind_of(signals.probability)]
        promised = self._chain * learned.worth
        if promised <= learned.feed:
            return self._finish[self._reads, learned.chosen]
        promised *= learned.mean
        if len(self._probabilities) == self.policy.max or promised <= learned.feed + learned.head:
            return self._verify[self._reads]
        return self._draft[self._reads, learned.chosen]

    def _begin(self, step: int) -> Plan:
        """The first plan of a round."""
        self._step = step
        self._probabilities.clear()
        self._chain = 1.0
        self._reads = self.learned.wait == 0
        if self.learned.chosen is not None:
            return self._draft[self._reads, self.learned.chosen]
        return self._verify[True] if self._reads else self._plain

    def _learn(self, signals: Signals) -> None:
        """Count what the round showed, and choose again where all exits were read."""
        learned = self.learned
        if self._reads and signals.shadow_tokens is not None:
            assert signals.targets is not None
            assert signals.shadow_probabilities is not None
            held = signals.shadow_tokens == signals.targets
            learned.counts.add(held, signals.shadow_probabilities)
            before = learned.chosen
            self._choose(signals.clock)
            longer = min(max(1, 2 * learned.waited), self.policy.interval)
            learned.waited = longer if learned.chosen == before else 1
            learned.wait = learned.waited - 1
        else:
            learned.wait = max(0, learned.wait - 1)
            if learned.chosen is not None and signals.drafted:
                learned.counts.add_one(learned.chosen, self._probabilities, signals.accepted)
        if learned.chosen is not None:
            learned.mean, learned.by_kind = learned.counts.of(learned.chosen)

    def _choose(self, clock: Clock | None) -> None:
        """Find the exit and the drafts with the most expected tokens per second."""
        costs = Costs(clock, self.layout, self.policy.max + 1)
        numbers = np.arange(self.policy.max + 1)
        best, learned = MARGIN / float(costs.rounds(0, numbers[:1])[0]), self.learned
        learned.chosen = None
        acceptance = learned.counts.mean()
        for place, below in enumerate(self.exits):
            tokens = np.cumsum(acceptance[place] ** numbers)  # the last of them is no draft
            rate = float((tokens / costs.rounds(below, numbers))[1:].max())
            if rate > best:
                best, learned.chosen = rate, place
                learned.worth, learned.feed = 1 / rate, costs.feed(below)
        learned.head = costs.head
