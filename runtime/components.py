"""The decoder components of a bundle, opened and checked."""

from __future__ import annotations

from collections.abc import Callable

from edgedec.runtime.contract import (
    Kept,
    check_fill,
    check_head,
    check_low_rank,
    check_meta,
    check_router,
    check_stage,
    standard,
)
from edgedec.runtime.manifest import Manifest, Stage
from edgedec.runtime.session import Session

_CHECKS = {"fill": check_fill, "low-rank": check_low_rank}


class Components:
    """Sessions of the stages and the head; what only some depth policies need opens on first use.

    Args:
        manifest: of the bundle.
        open_component: opens a component by its name.

    Attributes:
        kept: how the graphs have keys and values.

    Raises:
        BundleError: a graph does not fit the interface.
    """

    def __init__(self, manifest: Manifest, open_component: Callable[[str], Session]) -> None:
        self.manifest = manifest
        self.stages = manifest.stages
        self.interface = manifest.interface
        self._open = open_component
        self._full = [open_component(stage.component) for stage in manifest.stages]
        self.head = None if manifest.head is None else open_component(manifest.head)
        self.kept = self._found()
        for stage, session in zip(self.stages, self._full, strict=True):
            self._check_stage(session, stage)
        if self.head is not None:
            check_head(self.head, self.interface)
        self._others: dict[str, Session] = {}

    def stage(self, index: int, variant: str) -> Session:
        """A stage in a variant; raises BundleError where its graph does not fit."""
        if variant == "full":
            return self._full[index]
        stage = self.stages[index]
        name = stage.variants[variant]
        if name not in self._others:
            session = self._open(name)
            _CHECKS[variant](session, self.interface, stage, self.kept)
            self._others[name] = session
        return self._others[name]

    @property
    def meta(self) -> Session:
        """The confidence classifier."""
        return self._single(self.manifest.meta, check_meta)

    @property
    def router(self) -> Session:
        """The routers of all layers that have one."""
        return self._single(self.manifest.router, check_router)

    def _found(self) -> Kept:
        """How these graphs should have keys and values."""
        return standard(self.interface)

    def _check_stage(self, session: Session, stage: Stage) -> None:
        with_head = self.head is None
        check_stage(session, self.interface, stage, self.kept, with_head=with_head)

    def _single(self, name: str | None, check: Callable[..., None]) -> Session:
        assert name is not None
        if name not in self._others:
            session = self._open(name)
            check(session, self.interface)
            self._others[name] = session
        return self._others[name]
