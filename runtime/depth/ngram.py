"""Drafts from what was already said, without a model (after ADED, arXiv 2407.12021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import all_stages, check_range
from edgedec.runtime.depth.plan import Plan, Request, Signals

LONGEST_PAUSE = 32
"""Steps without drafts, at most, where they keep failing."""


@dataclass(frozen=True)
class Ngram:
    """Where the last tokens occurred before, draft what followed them, and verify at full depth.

    Looked up are the encoder's input, the prompt and the accepted text, so text that copies its
    source (corrections, summaries, code) or itself is drafted well. ADED also learns from a corpus
    and searches a tree of continuations; here there is one draft, and nothing but the request.

    Attributes:
        n: tokens of the n-grams: n - 1 that must occur before, and what followed; if the n - 1 did
            not occur, fewer are looked up.
        drafts: most tokens of a draft; it halves where nothing was accepted, down to pauses,
            and grows again.
        least: fewest tokens that must have occurred before.
    """

    name: ClassVar[str] = "ngram"
    one_row: ClassVar[bool] = True

    n: int = 3
    drafts: int = 8
    least: int = 1

    def __post_init__(self) -> None:
        check_range(self.name, n=(self.n, 2, 16), drafts=(self.drafts, 1, 64))
        check_range(self.name, least=(self.least, 1, self.n - 1))

    def needs(self, layers: int) -> Needs:  # noqa: ARG002
        """Nothing."""
        return Needs()

    def start(self, layout: Layout, request: Request) -> NgramPlanner:
        """Begin a text, with what is known before it."""
        table = Table(self.n - 1, self.least)
        if request.sources is not None:
            table.extend(request.sources[0])
            table.end()
        table.extend(request.prompts[0])
        return NgramPlanner(self, all_stages(layout), table, request.limit)


@dataclass
class Table:
    """Where each run of up to ``longest`` tokens last occurred.

    Attributes:
        longest, least: lengths of runs that are looked up.
        text: all tokens, ends of texts among them as -1.
        after: run -> place of what followed it.
    """

    longest: int
    least: int
    text: list[int] = field(default_factory=list)
    after: dict[tuple[int, ...], int] = field(default_factory=dict)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens; what follows the last of them is not known yet."""
        for token in tokens:
            place = len(self.text)
            for length in range(self.least, self.longest + 1):
                run = tuple(self.text[place - length : place])
                if len(run) == length and -1 not in run:
                    self.after[run] = place
            self.text.append(token)

    def end(self) -> None:
        """What follows does not continue what was there."""
        self.text.append(-1)

    def continuation(self, most: int) -> tuple[int, ...]:
        """What followed the last tokens where they last occurred; the longest run decides.

        A continuation that reaches the end of the text goes on with its own beginning: a loop.
        """
        for length in range(self.longest, self.least - 1, -1):
            place = self.after.get(tuple(self.text[-length:]))
            if place is None or len(self.text) < length:
                continue
            period = len(self.text) - place
            found: list[int] = []
            for i in range(most):
                token = self.text[place + i] if i < period else found[i - period]
                if token == -1:
                    break
                found.append(token)
            return tuple(found)
        return ()


@dataclass
class Pace:
    """How much drafting has paid so far, in this text and in those before it.

    Attributes:
        length: tokens of the next draft, at most.
        pause: steps without drafts still to come,
        pauses: and how many there were the last time; 0 after drafts that held.
    """

    length: int
    pause: int = 0
    pauses: int = 0

    def learn(self, drafted: int, accepted: int, most: int) -> None:
        """Note what became of a draft."""
        if accepted:
            self.pauses = 0
            if accepted == drafted:
                self.length = min(most, self.length * 2)
        elif self.length > 1:
            self.length //= 2
        else:
            self.pauses = self.pause = min(LONGEST_PAUSE, max(1, self.pauses * 2))


@dataclass
class NgramPlanner:
    """Drafts as long as that pays.

    Attributes:
        policy: its parameters.
        plain: full depth without drafts.
        table: of all tokens so far.
        left: tokens that may still be generated.
        pace: shared by all texts of a session, found again by its clock.
    """

    policy: Ngram
    plain: Plan
    table: Table
    left: int
    pace: Pace = field(init=False)
    _step: int = 0

    def __post_init__(self) -> None:
        self.pace = Pace(self.policy.drafts)

    def plan(self, step: int, signals: Signals) -> Plan:
        """One pass, with a draft if there is one."""
        if not self._step and signals.clock is not None:
            self.pace = signals.clock.learned.setdefault(self.policy, self.pace)
        self._step = step
        pace = self.pace
        self.table.extend(signals.tokens)
        self.left -= len(signals.tokens)
        if signals.drafted:
            pace.learn(signals.drafted, signals.accepted, self.policy.drafts)
        if pace.pause:
            pace.pause -= 1
            return self.plain
        # The pass itself adds one token to what holds.
        draft = self.table.continuation(min(pace.length, self.left - 1))
        return Plan(self.plain.passes, "verify", draft=draft) if draft else self.plain
