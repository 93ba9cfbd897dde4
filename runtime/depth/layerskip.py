"""LayerSkip: the lower layers draft, all of them verify (arXiv 2404.16710)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import check_layers, check_range, through
from edgedec.runtime.depth.plan import Plan, Request, Signals


@dataclass(frozen=True)
class LayerSkip:
    """Draft tokens from an exit, then take all of them through the upper layers at once.

    Verification goes on from the drafts' own hidden states and caches, and accepts what full depth
    would have chosen: the text is the same, greedy or sampled with a seed.

    Attributes:
        exit: layers below the exit.
        drafts: tokens that are drafted, at most: fewer where the text ends.
    """

    name: ClassVar[str] = "layerskip"
    one_row: ClassVar[bool] = True

    exit: int
    drafts: int = 4

    def __post_init__(self) -> None:
        check_range(self.name, exit=(self.exit, 1, None), drafts=(self.drafts, 1, 64))

    def needs(self, layers: int) -> Needs:
        """A cut at the exit.

        Raises:
            InputError: an exit that the decoder does not have.
        """
        check_layers(self.name, "exit", [self.exit], 1, layers - 1)
        return Needs(cuts=frozenset([self.exit]))

    def start(self, layout: Layout, request: Request) -> LayerSkipPlanner:  # noqa: ARG002
        """Begin a text."""
        below, count = layout.stage_from(self.exit), len(layout.stages)
        return LayerSkipPlanner(
            self.drafts,
            Plan(through(range(below)), "draft", wait=True),
            Plan(through(range(count)), "verify"),
            Plan(through(range(below, count)), "verify"),
        )


@dataclass
class LayerSkipPlanner:
    """Drafts, then verifies.

    Attributes:
        most: drafts of a round.
        draft: the next draft.
        verify: the last draft through all stages, those that wait through the upper ones.
        finish: the same where nothing may follow the last draft: it need not run itself.
    """

    most: int
    draft: Plan
    verify: Plan
    finish: Plan
    step: int = 0
    drafted: int = 0

    def plan(self, step: int, signals: Signals) -> Plan:
        """The next draft, or verification."""
        if step != self.step:
            self.step, self.drafted = step, 0
            return self.draft
        self.drafted += 1
        if signals.ended:
            return self.finish
        return self.verify if self.drafted == self.most else self.draft
