"""Unified layer skipping: the same layers, at even intervals, at every step (arXiv 2404.06954)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import Always, check_range, cut_layers, only_layers
from edgedec.runtime.depth.plan import Request


@dataclass(frozen=True)
class Unified:
    """The first layer, the last, and others at even intervals between them.

    They are the same at every step after the prompt, which has full depth. So the caches of the
    others are never read again, and no keys and values are copied to them.

    Attributes:
        layers: how many layers run.
    """

    name: ClassVar[str] = "unified"
    one_row: ClassVar[bool] = False

    layers: int

    def __post_init__(self) -> None:
        check_range(self.name, layers=(self.layers, 2, None))

    def kept(self, count: int) -> list[int]:
        """The layers that run in a decoder of ``count``; halves are rounded up."""
        gaps = self.layers - 1
        return [(2 * i * (count - 1) + gaps) // (2 * gaps) for i in range(self.layers)]

    def needs(self, layers: int) -> Needs:
        """A cut wherever a layer that runs has a neighbour that does not.

        Raises:
            InputError: more layers than the decoder has.
        """
        if self.layers > layers:
            raise InputError(
                f"--depth unified: layers={self.layers}, but the decoder has {layers}: give at "
                "most that."
            )
        return Needs(cuts=cut_layers(self.kept(layers), layers))

    def start(self, layout: Layout, request: Request) -> Always:  # noqa: ARG002
        """The same plan for every batch."""
        return Always(only_layers(layout, self.kept(layout.layers)))
