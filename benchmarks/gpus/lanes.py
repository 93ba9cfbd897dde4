"""How anything on a GPU is timed: recorded once as a CUDA graph, replayed many times, by the clock.

A launch costs the host more than a small product takes the GPU, so what is timed is a graph of many
launches. It is replayed without waiting in between; the clock is read before and after them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

LAUNCHES = 256
LASTING = 4 << 30
"""A graph has so many launches, or as many as move so many bytes: its own start counts little."""
ROTATED = 256 << 20
"""Bytes of weights that launches take in turns: twice the largest last-level cache of a GPU."""


class Lane(Protocol):
    """A stream of a GPU, or what stands in for one."""

    def record(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """What ``enqueue`` launches, as one launch."""
        ...

    def finish(self) -> None:
        """Wait until everything is done."""
        ...


class Product(Protocol):
    """Something that is launched again and again.

    Attributes:
        copies: buffers that its launches take in turns.
        nbytes: bytes that one launch must move, at the least.
    """

    copies: int
    nbytes: int

    def launch(self, copy: int) -> None:
        """Enqueue it once, reading buffer ``copy``."""
        ...

    def error(self) -> float:
        """How far what was written is from NumPy's result: norm of the difference by its norm."""
        ...


class HostLane:
    """No GPU: what is enqueued has run when the call returns."""

    def record(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """The same, again."""
        return enqueue

    def finish(self) -> None:
        """Nothing is open."""


def copies(rotated: int, nbytes: int) -> int:
    """How many copies of so many bytes are ``rotated`` bytes, two at least."""
    return max(2, -(-rotated // nbytes))


class Timed:
    """A product, recorded as one launch of many.

    Args:
        lane: where it runs.
        product: which.
        launches: how many are recorded, where a few do not last long enough.
    """

    def __init__(self, lane: Lane, product: Product, launches: int) -> None:
        self._lane = lane
        turns = min(launches, -(-LASTING // product.nbytes))
        self._count = product.copies * -(-turns // product.copies)
        product.launch(0)  # loads code, which a recording must not
        lane.finish()
        self._replay = lane.record(lambda: self._all(product))
        self._once = self._seconds(1)

    def microseconds(self, budget: float) -> float:
        """Microseconds of one launch, over about ``budget`` seconds."""
        repeats = max(1, round(budget / max(self._once, 1e-9)))
        return 1e6 * self._seconds(repeats) / repeats / self._count

    def _all(self, product: Product) -> None:
        for i in range(self._count):
            product.launch(i % product.copies)

    def _seconds(self, repeats: int) -> float:
        self._replay()  # the GPU's clock slows down while others have their turn
        self._lane.finish()
        begin = time.perf_counter()
        for _ in range(repeats):
            self._replay()
        self._lane.finish()
        return time.perf_counter() - begin
