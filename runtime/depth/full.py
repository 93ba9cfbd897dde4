"""Full depth: every stage at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import Always, all_stages
from edgedec.runtime.depth.plan import Request


@dataclass(frozen=True)
class Full:
    """Run all stages of the decoder, whatever the step."""

    name: ClassVar[str] = "full"
    one_row: ClassVar[bool] = False

    def needs(self, layers: int) -> Needs:  # noqa: ARG002
        """Nothing."""
        return Needs()

    def start(self, layout: Layout, request: Request) -> Always:  # noqa: ARG002
        """The same plan for every batch."""
        return Always(all_stages(layout))
