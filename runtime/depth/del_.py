"""DEL: self-speculation that finds its exit and its number of drafts (arXiv 2504.05598)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.depth.clock import Clock
from edgedec.runtime.depth.costs import Costs
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import check_layers, check_range, through
from edgedec.runtime.depth.plan import Plan, Request, Signals

Numbers = NDArray[np.float64]
PRIOR = 0.5
"""Of a draft that held and of one that did not, before anything was seen: nothing is certain."""


@dataclass(frozen=True)
class Del:
    """Draft from the exit that promises most tokens per second, as long as drafts look certain.

    After verification the head also reads the hidden states that every exit had in this round
    (shadow tokens): what each would have drafted, and how sure. Decayed counts of these estimate
    each exit's acceptance. Expected tokens are divided by measured seconds, head included; the
    source divides by layers, and never considers not to draft, which is always possible here. The
    source begins with counts from the prompt; here the first rounds do not draft, and read all
    exits. Reading costs a product with the vocabulary for every exit and position, so it is done
    less and less often while the choice stays.

    Attributes:
        max: most drafts of a round.
        omega: decay of counts from round to round.
        interval: most rounds from one reading of all exits to the next.
        exits: layers that may be the exit; none given: wherever the bundle is cut.
    """

    name: ClassVar[str] = "del"
    one_row: ClassVar[bool] = True

    max: int = 18
    omega: float = 0.95
    interval: int = 16
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
class DelPlanner:
    """Learns from every round, and drafts as the last choice says.

    Attributes:
        policy: its parameters.
        layout: of the bundle.
        exits: stages below every candidate.
        counts: of their drafts.
        chosen: the exit that drafts, by its place in ``exits``; None: no drafts.
        stop: probability below which a draft is the last.
        wait: rounds until all exits are read again,
        waited: and rounds between the last two readings.
    """

    policy: Del
    layout: Layout
    exits: tuple[int, ...]
    counts: Counts = field(init=False)
    chosen: int | None = None
    stop: float = 0.0
    wait: int = 0
    waited: int = 0
    step: int = 0
    drafted: int = 0
    probabilities: list[float] = field(default_factory=list)
    reads: bool = False

    def __post_init__(self) -> None:
        count = len(self.layout.stages)
        self.counts = Counts(len(self.exits), self.policy.omega)
        self._draft = [
            Plan(through(range(below)), "draft", wait=True, measure="softmax_max")
            for below in self.exits
        ]
        everything = through(range(count))
        self._verify = {
            reads: Plan(everything, "verify", shadow=shadow)
            for reads, shadow in ((False, ()), (True, tuple(below - 1 for below in self.exits)))
        }
        self._finish = {
            (reads, place): Plan(everything[below:], "verify", shadow=plan.shadow)
            for reads, plan in self._verify.items()
            for place, below in enumerate(self.exits)
        }
        self._plain = Plan(everything)

    def plan(self, step: int, signals: Signals) -> Plan:
        """The next draft, or verification."""
        if step != self.step:
            if self.step:
                self._learn(signals)
            self.step, self.drafted = step, 0
            self.probabilities.clear()
            self.reads = self.wait == 0
            if self.chosen is not None:
                return self._draft[self.chosen]
            return self._verify[True] if self.reads else self._plain
        assert self.chosen is not None
        assert signals.probability is not None
        self.drafted += 1
        self.probabilities.append(signals.probability)
        if signals.ended:
            return self._finish[self.reads, self.chosen]
        if self.drafted == self.policy.max or signals.probability < self.stop:
            return self._verify[self.reads]
        return self._draft[self.chosen]

    def _learn(self, signals: Signals) -> None:
        """Count what the round showed, and choose again where all exits were read."""
        if self.reads and signals.shadow_tokens is not None:
            assert signals.targets is not None
            assert signals.shadow_probabilities is not None
            held = signals.shadow_tokens == signals.targets
            self.counts.add(held, signals.shadow_probabilities.astype(np.float64))
            before = self.chosen
            self.chosen = self._best(signals.clock)
            longer = min(max(1, 2 * self.waited), self.policy.interval)
            self.waited = longer if self.chosen == before else 1
            self.wait = self.waited - 1
        else:
            self.wait = max(0, self.wait - 1)
            if self.chosen is not None and signals.drafted:
                seen = min(signals.drafted, signals.accepted + 1)
                held = np.arange(seen) < signals.accepted
                self.counts.add(
                    held[None],
                    np.array([self.probabilities[:seen]]),
                    slice(self.chosen, self.chosen + 1),
                )
        if self.chosen is not None:
            self.stop = self.counts.least_sure(self.chosen)

    def _best(self, clock: Clock | None) -> int | None:
        """The exit with the most expected tokens per second; None where none beats full depth."""
        costs = Costs(clock, self.layout, self.policy.max + 1)
        numbers = np.arange(self.policy.max + 1)
        best, found = 1.0 / float(costs.rounds(0, numbers[:1])[0]), None
        acceptance = self.counts.acceptance()
        for place, below in enumerate(self.exits):
            tokens = np.cumsum(acceptance[place] ** numbers)  # the last of them is no draft
            rate = float((tokens / costs.rounds(below, numbers))[1:].max())
            if rate > best:
                best, found = rate, place
        return found
