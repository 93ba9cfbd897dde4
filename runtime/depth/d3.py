"""D3: depth decays by a power of the position (arXiv 2503.08524)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import Scheduled, check_range, cut_layers
from edgedec.runtime.depth.plan import Request


@dataclass(frozen=True)
class D3:
    """floor(L * alpha ** i) layers run at the i-th position after ``begin``: first ones and last.

    What is dropped lies between them. The source keeps layers at both ends and lets the flexible
    ones in the middle fall out with the position; in which order it does not say, here the upper
    ones go first. Depth never grows, so the caches of dropped layers are never read again, and no
    keys and values are copied to them. The prompt, and so the first token, has full depth.

    Attributes:
        alpha: decay for every position; 1 keeps all layers.
        begin: positions after the first token that keep full depth.
        min: the least depth.
        last: layers at the end that always run; they count in the depth.
    """

    name: ClassVar[str] = "d3"
    one_row: ClassVar[bool] = False

    alpha: float = 0.99
    begin: int = 0
    min: int = 2
    last: int = 1

    def __post_init__(self) -> None:
        check_range(
            self.name,
            alpha=(self.alpha, 0, 1),
            begin=(self.begin, 0, None),
            last=(self.last, 1, None),
            min=(self.min, 2, None),
        )
        if self.min <= self.last:
            raise InputError(
                f"--depth d3: min={self.min} layers leave none before the last={self.last}: give a "
                "larger min."
            )

    def depth(self, t: int, count: int) -> int:
        """Layers of ``count`` at the position ``t`` steps after the first generated token."""
        return max(self.min, math.floor(count * self.alpha ** max(0, t - self.begin)))

    def layers(self, depth: int, count: int) -> list[int]:
        """The layers that run at a depth, in a decoder of ``count``."""
        return [*range(depth - self.last), *range(count - self.last, count)]

    def needs(self, layers: int) -> Needs:
        """Cuts before the last layers and wherever the first ones ever end.

        Raises:
            InputError: more layers than the decoder has.
        """
        if self.min > layers:
            raise InputError(
                f"--depth d3: min={self.min}, but the decoder has {layers} layers: give at most "
                "that."
            )
        if self.alpha == 1:
            return Needs()
        cuts: frozenset[int] = frozenset()
        for depth in range(self.min, layers + 1):
            cuts |= cut_layers(self.layers(depth, layers), layers)
        return Needs(cuts=cuts)

    def start(self, layout: Layout, request: Request) -> Scheduled:  # noqa: ARG002
        """Begin a batch."""
        count = layout.layers
        return Scheduled(
            layout, lambda t: self.depth(t, count), lambda depth: self.layers(depth, count)
        )
