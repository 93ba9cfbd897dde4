"""What a bundle offers to depth policies, and what a policy asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgedec.errors import InputError


@dataclass(frozen=True)
class Needs:
    """What a policy asks of a bundle.

    Attributes:
        cuts: layers before which the decoder must be cut (0 < cut < layers).
        fill: layers that must have a fill variant.
        low_rank: layers that must have a low-rank variant.
        routers: layers that must have a router.
        meta: whether there must be a confidence classifier.
    """

    cuts: frozenset[int] = frozenset()
    fill: frozenset[int] = frozenset()
    low_rank: frozenset[int] = frozenset()
    routers: frozenset[int] = frozenset()
    meta: bool = False

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.cuts | other.cuts,
            self.fill | other.fill,
            self.low_rank | other.low_rank,
            self.routers | other.routers,
            self.meta or other.meta,
        )


@dataclass(frozen=True)
class Layout:
    """The decoder of a bundle as policies see it.

    Attributes:
        stages: ``(first, last)`` layers of every stage, in order.
        fill: stages with a fill variant.
        low_rank: stages with a low-rank variant.
        routers: layers with a router.
        meta: whether there is a confidence classifier.
    """

    stages: tuple[tuple[int, int], ...]
    fill: frozenset[int] = field(default=frozenset())
    low_rank: frozenset[int] = field(default=frozenset())
    routers: frozenset[int] = field(default=frozenset())
    meta: bool = False

    @property
    def layers(self) -> int:
        """Layers of the decoder."""
        return self.stages[-1][1]

    def stage_from(self, layer: int) -> int:
        """The stage that begins with a layer; the number of stages for the end of the decoder.

        Raises:
            InputError: the decoder is not cut there.
        """
        starts = [first for first, _ in self.stages] + [self.layers]
        if layer not in starts:
            raise InputError(
                f"the decoder is not cut before layer {layer} (it is before "
                f"{', '.join(map(str, starts[1:-1])) or 'none'}): export with another --depth or "
                "--stages."
            )
        return starts.index(layer)

    def between(self, first: int, last: int) -> tuple[int, ...]:
        """The stages of layers ``first <= layer < last``."""
        return tuple(range(self.stage_from(first), self.stage_from(last)))

    def of_layers(self, layers: Iterable[int]) -> tuple[int, ...]:
        """The stages that hold exactly these layers, in order.

        Raises:
            InputError: a stage holds some of them and others.
        """
        wanted = set(layers)
        found = []
        for index, (first, last) in enumerate(self.stages):
            inside = wanted & set(range(first, last))
            if inside and len(inside) < last - first:
                raise InputError(
                    f"layers {first} to {last - 1} of this bundle are one stage, of which only "
                    f"{', '.join(map(str, sorted(inside)))} would run: export with another --depth "
                    "or --stages."
                )
            if inside:
                found.append(index)
        return tuple(found)
