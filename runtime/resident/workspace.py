"""The memory of a batch, kept for the next one of the same shape with all that is bound to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedec.errors import InputError
from edgedec.runtime.anchors import Anchors
from edgedec.runtime.hidden import HiddenMemory
from edgedec.runtime.resident.bound import ResidentBindings
from edgedec.runtime.resident.cache import ResidentCache
from edgedec.runtime.resident.contract import NUMBERS
from edgedec.runtime.resident.memory import ResidentMemory, empty_memory

if TYPE_CHECKING:
    from edgedec.runtime.resident.components import ResidentComponents

IDLE = 3
"""Workspaces that are kept while nobody uses them."""


@dataclass(frozen=True)
class Shape:
    """What memory a batch needs.

    Attributes:
        rows: sequences decoded side by side.
        source: length that sources are padded to, None without an encoder.
        anchors: whether low-rank variants are used.
    """

    rows: int
    source: int | None
    anchors: bool


@dataclass(frozen=True, eq=False)
class Workspace:
    """Memory for one batch, and what is bound to it."""

    shape: Shape
    cache: ResidentCache
    memory: ResidentMemory | None
    anchors: dict[int, Anchors]
    hidden: HiddenMemory
    bindings: ResidentBindings


class Workspaces:
    """Lends workspaces: a device that captures its launches does so once for each.

    Args:
        components: sessions that bind the memory.
    """

    def __init__(self, components: ResidentComponents) -> None:
        self._components = components
        self._idle: list[Workspace] = []

    def lend(self, shape: Shape) -> Workspace:
        """A workspace without any positions in its caches.

        Raises:
            InputError: the device has not enough memory.
        """
        found = self._take(shape)
        if found is None:
            try:
                found = self._make(shape)
            except InputError:
                if not self._idle:
                    raise
        if found is None:
            # Not while the error is handled: it keeps what the first try had got already.
            self._idle.clear()
            found = self._make(shape)
        found.cache.clear()
        found.bindings.begin()
        return found

    def give_back(self, workspace: Workspace) -> None:
        """Keep it for the next batch; the one that waits longest makes room for it."""
        self._idle = [*self._idle[-(IDLE - 1) :], workspace]

    def _take(self, shape: Shape) -> Workspace | None:
        """An idle workspace; no name of a caller's may keep another one alive."""
        index = next((i for i, idle in enumerate(self._idle) if idle.shape == shape), None)
        return None if index is None else self._idle.pop(index)

    def _make(self, shape: Shape) -> Workspace:
        from edgedec.runtime.decoder import anchors_of

        components, rows = self._components, shape.rows
        io, arena = components.interface, components.arena
        dtype = NUMBERS[components.kept.type]
        cache = ResidentCache(arena, io.decoder_layers, rows, components.row, dtype)
        memory = None
        if shape.source is not None:
            memory = empty_memory(arena, io, rows, shape.source, dtype)
        anchors = anchors_of(components, rows) if shape.anchors else {}
        hidden = HiddenMemory(rows, io.d_model)
        bindings = ResidentBindings(components, memory, cache, hidden, anchors)
        return Workspace(shape, cache, memory, anchors, hidden, bindings)
