"""When what ran: the spans of requests, taken where the work is done."""

from __future__ import annotations

from time import perf_counter
from typing import Literal, NamedTuple

Kind = Literal["request", "phase", "run", "work"]


class Span(NamedTuple):
    """Something that took time.

    Attributes:
        kind: ``request``: a call of the generator. ``phase``: what a request consists of, one after
            another without gaps: ``tokenize``, ``prepare``, ``encode``, ``first step``, ``step``
            (one for each further token, known at its end), ``detokenize``. ``run``: a graph, by
            its component. ``work``: ``plan`` of a depth policy, or ``search``. Runs and work lie
            inside of phases.
        name: as above.
        begin: of `time.perf_counter`, seconds.
        seconds: it took.
    """

    kind: Kind
    name: str
    begin: float
    seconds: float


class Spans:
    """Takes spans while it is on; off, which it is at first, it only costs the question.

    One object serves a generator and its sessions.

    Attributes:
        on: whether spans are taken.
    """

    def __init__(self) -> None:
        self.on = False
        self._taken: list[Span] = []
        self._request = self._last = 0.0

    def begin_request(self) -> None:
        """A request begins, and its first phase."""
        if self.on:
            self._request = self._last = perf_counter()

    def end_request(self) -> None:
        """The request is over."""
        if self.on:
            now = perf_counter()
            self._taken.append(Span("request", "request", self._request, now - self._request))

    def lap(self, phase: str) -> None:
        """A phase ends, and the next one begins."""
        if self.on:
            now = perf_counter()
            self._taken.append(Span("phase", phase, self._last, now - self._last))
            self._last = now

    def resume(self) -> None:
        """The next phase begins only now: what was before is not ours."""
        if self.on:
            self._last = perf_counter()

    def begin(self) -> float:
        """The time at which some work begins."""
        return perf_counter() if self.on else 0.0

    def end(self, name: str, began: float) -> None:
        """That work ends."""
        if self.on:
            self._taken.append(Span("work", name, began, perf_counter() - began))

    def ran(self, component: str, began: float, seconds: float) -> None:
        """A graph has run."""
        self._taken.append(Span("run", component, began, seconds))

    def take(self) -> list[Span]:
        """What was taken since the last call, in the order in which it ended."""
        taken, self._taken = self._taken, []
        return taken
