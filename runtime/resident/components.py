"""The decoder components of a bundle on a device with resident caches, opened and checked."""

from __future__ import annotations

from collections.abc import Callable

from edgedec.runtime.components import Components
from edgedec.runtime.contract import Kept, check_stage
from edgedec.runtime.manifest import Limits, Manifest, Stage
from edgedec.runtime.resident.arena import Arena
from edgedec.runtime.resident.contract import chained, kept_by_stage
from edgedec.runtime.resident.workspace import Workspaces
from edgedec.runtime.session import Session


class ResidentComponents(Components):
    """Sessions of the stages and the head, and the memory that they work on.

    Args:
        manifest: of the bundle.
        open_component: opens a component by its name.
        arena: the device's memory.
        limits: how far the graphs reach.
        ahead: several greedy steps may be made in one launch.

    Attributes:
        arena, limits: as given.
        chained: whether greedy steps can be made several at a time.
        workspaces: the memory of batches.

    Raises:
        BundleError: a graph does not fit the interface.
    """

    def __init__(
        self,
        manifest: Manifest,
        open_component: Callable[[str], Session],
        arena: Arena,
        limits: Limits,
        *,
        ahead: bool = True,
    ) -> None:
        self.arena = arena
        self.limits = limits
        super().__init__(manifest, open_component)
        self.chained = ahead and self.head is None and bool(chained(self._full[0]))
        self.workspaces = Workspaces(self)

    @property
    def row(self) -> tuple[int, int, int]:
        """Heads, positions and width of a row's cache in one layer."""
        _, heads, positions, width = self.kept.past
        assert heads is not None
        assert positions is not None
        assert width is not None
        return heads, positions, width

    def _found(self) -> Kept:
        return kept_by_stage(self._full[0], self.interface, self.limits, self.stages[0].first)

    def _check_stage(self, session: Session, stage: Stage) -> None:
        with_head = self.head is None
        more = chained(session) if with_head else ()
        check_stage(session, self.interface, stage, self.kept, with_head=with_head, more=more)
