"""DEL: self-speculation that finds its exit and its number of drafts (arXiv 2504.05598)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.costs import Costs
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import all_stages, check_layers, check_range
from edgedec.runtime.depth.plan import Plan, Request, Signals

Numbers = NDArray[np.float64]
PRIOR = 0.5
"""Of a draft that held and of one that did not, before anything was seen: nothing is certain."""
MARGIN = 1.05
"""Drafts must promise so many times the tokens per second of full depth: what the loop takes for
each of them is not measured."""


@dataclass(frozen=True)
class Del:
    """Draft from the exit that promises most tokens per second, as long as drafts look certain.

    After verification the head also reads the hidden states that every exit had in this round
    (shadow tokens): what each would have drafted, and how sure. Decayed counts of these estimate
    each exit's acceptance. What differs from the source:

    - Expected tokens are divided by measured seconds, head included, and not by layers.
    - Not to draft at all is a choice too, and the first.
    - The best number of drafts bounds a round, and not only their probability.
    - Counts go on from text to text, where the source begins with each prompt's own; they decay
      more slowly, too (the source: 0.95).
    - All exits are read less and less often while the choice stays: each reading is a product with
      the vocabulary for every exit and position.

    Attributes:
        max: most drafts of a round.
        omega: decay of counts from round to round.
        interval: most rounds from one reading of all exits to the next.
        exits: layers that may be the exit; none given: wherever the bundle is cut.
    """

    name: ClassVar[str] = "del"
    one_row: ClassVar[bool] = True

    max: int = 18
    omega: float = 0.99
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
        exits = self.exits or tuple(range(1, layers))
        check_layers(self.name, "exits", exits or (1,), 1, layers - 1)
        return Needs(cuts=frozenset(exits))

    def start(self, layout: Layout, request: Request) -> DelPlanner:  # noqa: ARG002
        """Begin a text.

        Raises:
            InputError: the decoder is not cut at all.
        """
        given = self.exits or tuple(first for first, _ in layout.stages[1:])
        check_layers(self.name, "exits", given or (1,), 1, layout.layers - 1 if given else 0)
        return DelPlanner(self, layout, tuple(layout.stage_from(layer) for layer in given))


class Counts:
    """What was seen of every exit's drafts, older rounds counting less.

    Attributes:
        right, wrong: float64 ``[exits]``, decayed numbers of drafts that held and that did not.
        sure, unsure: sums of these drafts' probabilities.
    """

    def __init__(self, exits: int, omega: float) -> None:
        self.omega = omega
        self.right = np.zeros(exits)
        self.wrong = np.zeros(exits)
        self.sure = np.zeros(exits)
        self.unsure = np.zeros(exits)

    def add(
        self, held: NDArray[np.bool_], probabilities: Numbers, exits: slice = slice(None)
    ) -> None:
        """Count a round: ``[exits, positions]``, whether a draft held, and its probability."""
        for total, new in (
            (self.right, held.sum(axis=1)),
            (self.wrong, (~held).sum(axis=1)),
            (self.sure, (held * probabilities).sum(axis=1)),
            (self.unsure, (~held * probabilities).sum(axis=1)),
        ):
            total[exits] = self.omega * total[exits] + new

    def acceptance(self) -> Numbers:
        """Estimated probability that an exit's draft holds, float64 ``[exits]``."""
        found: Numbers = (self.right + PRIOR) / (self.right + self.wrong + 2 * PRIOR)
        return found

    def least_sure(self, index: int) -> float:
        """Probability below which an exit's draft is the last of its round.

        Half-way between the mean of those that held and of those that did not; 0 before there are
        both.
        """
        right, wrong = self.right[index], self.wrong[index]
        if not right or not wrong:
            return 0.0
        return float(self.sure[index] / right + self.unsure[index] / wrong) / 2


@dataclass
class Learned:
    """What the rounds so far say, of this text and of those before it.

    Attributes:
        counts: of every exit's drafts.
        chosen: the exit that drafts, by its place among the exits; None: no drafts.
        most: drafts of a round, at most.
        stop: probability below which a draft is the last.
        wait: rounds until all exits are read again,
        waited: and rounds between the last two readings.
    """

    counts: Counts
    chosen: int | None = None
    most: int = 1
    stop: float = 0.0
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
    _probabilities: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.learned = Learned(Counts(len(self.exits), self.policy.omega))
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
        if len(self._probabilities) == learned.most or signals.probability < learned.stop:
            return self._verify[self._reads]
        return self._draft[self._reads, learned.chosen]

    def _begin(self, step: int) -> Plan:
        """The first plan of a round."""
        self._step = step
        self._probabilities.clear()
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
            learned.counts.add(held, signals.shadow_probabilities.astype(np.float64))
            before = learned.chosen
            self._choose(signals.clock)
            longer = min(max(1, 2 * learned.waited), self.policy.interval)
            learned.waited = longer if learned.chosen == before else 1
            learned.wait = learned.waited - 1
        else:
            learned.wait = max(0, learned.wait - 1)
            if learned.chosen is not None and signals.drafted:
                seen = min(signals.drafted, signals.accepted + 1)
                held = np.arange(seen) < signals.accepted
                learned.counts.add(
                    held[None],
                    np.array([self._probabilities[:seen]]),
                    slice(learned.chosen, learned.chosen + 1),
                )
        if learned.chosen is not None:
            learned.stop = learned.counts.least_sure(learned.chosen)

    def _choose(self, clock: Clock | None) -> None:
        """Find the exit and the drafts with the most expected tokens per second."""
        costs = Costs(clock, self.layout, self.policy.max + 1)
        numbers = np.arange(self.policy.max + 1)
        best, self.learned.chosen = MARGIN / float(costs.rounds(0, numbers[:1])[0]), None
        acceptance = self.learned.counts.acceptance()
        for place, below in enumerate(self.exits):
            tokens = np.cumsum(acceptance[place] ** numbers)  # the last of them is no draft
            rates = (tokens / costs.rounds(below, numbers))[1:]
            most = int(rates.argmax())
            if rates[most] > best:
                best = float(rates[most])
                self.learned.chosen, self.learned.most = place, most + 1
