"""SkipDecode: fewer and fewer layers as a text gets longer (arXiv 2307.02628)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import Scheduled, check_range
from edgedec.runtime.depth.plan import Request


@dataclass(frozen=True)
class SkipDecode:
    """The first layers and the top ones run, and their number falls linearly with the position.

    Active sets are nested: a layer that was dropped never runs again, so its caches are complete
    for whoever reads them, and no keys and values are copied. All rows of a batch have the same
    depth at a step. The prompt, and so the first token, has full depth.

    Attributes:
        min: layers at and after position ``length``.
        max: layers at the second token.
        warmup: first layers, which always run; they count in ``min`` and ``max``.
        length: generated position with the least depth. Not the most tokens that may be generated:
            what a token becomes would depend on a limit that is rarely reached.
    """

    name: ClassVar[str] = "skipdecode"
    one_row: ClassVar[bool] = False

    min: int
    max: int
    warmup: int = 1
    length: int = 64

    def __post_init__(self) -> None:
        check_range(
            self.name,
            warmup=(self.warmup, 1, None),
            min=(self.min, 1, None),
            max=(self.max, 1, None),
            length=(self.length, 1, None),
        )
        if not self.warmup <= self.min <= self.max:
            raise InputError(
                f"--depth skipdecode: warmup={self.warmup},min={self.min},max={self.max} must not "
                "fall from one to the next: warmup layers count in min, and depth shrinks from max "
                "to min."
            )

    def depth(self, t: int) -> int:
        """Layers of the position ``t`` steps after the first generated token.

        round((1 - r) * max + r * min) with r = min(t / length, 1), halves rounded up, in whole
        numbers so that no platform rounds differently.
        """
        length = self.length
        t = min(t, length)
        return (2 * ((length - t) * self.max + t * self.min) + length) // (2 * length)

    def layers(self, depth: int, count: int) -> list[int]:
        """The layers that run at a depth, in a decoder of ``count``."""
        return [*range(self.warmup), *range(count - (depth - self.warmup), count)]

    def needs(self, layers: int) -> Needs:
        """Cuts after the warm-up and before every layer where the upper part ever starts.

        Raises:
            InputError: more layers than the decoder has.
        """
        if self.max > layers:
            raise InputError(
                f"--depth skipdecode: max={self.max}, but the decoder has {layers} layers: give at "
                "most that."
            )
        # From one position to the next, depth falls by one at most if there is room for that.
        short = self.length < self.max - self.min
        depths = (
            {self.depth(t) for t in range(self.length + 1)}
            if short
            else set(range(self.min, self.max + 1))
        )
        starts = {layers - (depth - self.warmup) for depth in depths}
        cuts = starts | {self.warmup} if starts != {self.warmup} else set()
        return Needs(cuts=frozenset(cuts) - {layers})

    def start(self, layout: Layout, request: Request) -> Scheduled:  # noqa: ARG002
        """Begin a batch."""
        return Scheduled(layout, self.depth, lambda depth: self.layers(depth, layout.layers))
