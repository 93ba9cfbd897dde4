"""The loop that joins search, planner and decoder: it carries out what a depth policy plans."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from edgedec.runtime.bound import StepOutput
from edgedec.runtime.depth.confidence import MEASURES, probability, similarity
from edgedec.runtime.depth.plan import Plan, Planner, Signals
from edgedec.runtime.depth.statistics import Statistics
from edgedec.runtime.search import Search
from edgedec.runtime.search.protocol import Advance
from edgedec.runtime.search.rows import RowSearch
from edgedec.runtime.spans import Spans
from edgedec.runtime.steps import Steps

if TYPE_CHECKING:
    from edgedec.runtime.decoder import Decoding


class Loop:
    """Generates for one batch after its prompts were fed.

    Args:
        decoding: a row for each prompt.
        search: chooses tokens.
        planner: plans the passes of every step (runtime/depth/plan.py says what plans mean).
        statistics: are filled on the way.
        spans: are told of every token, plan and choice.
        beams: decoder rows for each prompt.
        context: positions that were fed, where there is a single row.
    """

    def __init__(
        self,
        decoding: Steps,
        search: Search,
        planner: Planner,
        statistics: Statistics,
        spans: Spans,
        *,
        beams: int,
        context: int,
    ) -> None:
        self._decoding = decoding
        self._search = search
        self._planner = planner
        self._statistics = statistics
        self._spans = spans
        self._beams = beams
        self._context = context
        self._layers = [stage.last - stage.first for stage in decoding.stages]
        self._next: NDArray[np.int64] = np.zeros((search.rows, 1), np.int64)
        self._decided: tuple[int, ...] = ()
        self._ended: NDArray[np.bool_] | None = None
        self._finished: NDArray[np.bool_] | None = None  # [rows], once one has ended
        self._counts: NDArray[np.int64] | None = None
        self._live = search.rows
        self._began = 0.0
        self._begin_step()

    def run(self, output: StepOutput, routers: NDArray[np.float32] | None = None) -> Iterator[None]:
        """Generate to the end; yields after every choice of tokens.

        Args:
            output: what followed the prompts.
            routers: float32 ``[prompts, layers]``, their scores over the prompts.
        """
        decoding, statistics = self._decoding, self._statistics
        many = self._beams > 1
        if many:
            decoding.fork(self._beams)
            if routers is not None:
                routers = np.repeat(routers, self._beams, axis=0)
        for kind in decoding.seconds:
            statistics.seconds.setdefault(kind, 0.0)
        decoding.seconds, decoding.layers = statistics.seconds, 0
        choice = self._advance(None if many else output.next_token, output.logits)
        self._take(choice)
        self._spans.lap("first step")
        yield
        if choice.done:
            return
        self._resume()
        signals = Signals(tokens=self._decided, routers=routers, clock=decoding.clock)
        step = 1
        while True:
            began = self._spans.begin()
            plan = self._planner.plan(step, signals)
            self._spans.end("plan", began)
            self._pass(plan)
            if plan.then in {"look", "draft"}:
                signals = self._look(plan) if plan.then == "look" else self._draft(plan)
                continue
            statistics.steps += 1
            if plan.then == "choose":
                choice = self._choose(plan)
                self._pause()
                yield
                self._resume()
                if choice.done:
                    return
                signals = Signals(tokens=self._decided, clock=decoding.clock)
            else:
                verified = yield from self._verify(plan)
                if verified is None:
                    return
                signals = verified
            self._begin_step()
            step += 1

    def _begin_step(self) -> None:
        self._fed = 0  # positions in this step, of a single row
        self._drafts: list[int] = []
        self._draft_search: RowSearch | None = None
        self._depth: int | NDArray[np.int64] = 0  # layers of the new positions, [rows] if they vary
        self._looked: StepOutput | None = None
        self._decoding.keep(False)

    def _pause(self) -> None:
        """Whoever takes the tokens may take time, which is not ours."""
        statistics, decoding = self._statistics, self._decoding
        statistics.total_seconds += perf_counter() - self._began
        statistics.layers += decoding.layers
        decoding.layers = 0
        self._spans.lap("step")

    def _resume(self) -> None:
        self._spans.resume()
        self._began = perf_counter()

    def _pass(self, plan: Plan) -> None:
        """Carry out the passes of a plan."""
        passes = plan.passes
        if not passes:
            return
        decoding = self._decoding
        self._looked = None
        if plan.shadow:
            decoding.keep(True)
        if passes[0].stage == 0:
            tokens = self._next
            if plan.draft:
                # What goes beyond the limit can never be accepted.
                room = cast("RowSearch", self._search).room - 1 - len(self._drafts)
                drafts = plan.draft[: max(room, 0)]
                self._drafts += drafts
                tokens = np.array([[*tokens[0], *drafts]], np.int64)
            new = tokens.shape[1]
            self._fed += new
            logits = self._search.needs_logits or plan.measure in MEASURES
            decoding.feed(tokens, self._counts, last=new, want_logits=logits)
        for one in passes:
            decoding.run(one.stage, one.variant, plan.behind, one.rows)
            if one.variant == "full":
                layers = self._layers[one.stage]
                if one.rows is None:
                    self._depth = self._depth + layers
                else:
                    self._depth = self._depth + layers * np.array(one.rows, np.int64)

    def _look(self, plan: Plan) -> Signals:
        """Report how sure each row is."""
        decoding, measure = self._decoding, plan.measure
        if measure in MEASURES:
            self._looked = decoding.read(want_logits=True).last
            assert self._looked.logits is not None
            confidence = MEASURES[measure](self._looked.logits)
        elif measure == "state":
            confidence = similarity(*cast("Decoding", decoding).last_states())
        else:
            confidence = cast("Decoding", decoding).confidence()
        if self._finished is not None:
            confidence = np.where(self._finished, np.float32(1), confidence)
        return Signals(confidence=confidence, tokens=self._decided, clock=decoding.clock)

    def _draft(self, plan: Plan) -> Signals:
        """Choose a token by a copy of the search; it is fed next."""
        decoding = self._decoding
        if self._draft_search is None:
            self._draft_search = cast("RowSearch", self._search).copy()
        wants = plan.measure in MEASURES
        output = self._read(wants or self._search.needs_logits)
        choice = self._draft_search.advance(output.next_token, output.logits)
        token = int(choice.tokens[0])
        chance = None
        if wants:
            assert output.logits is not None
            chance = probability(output.logits[0], token)
        if plan.wait:
            decoding.wait()
        self._drafts.append(token)
        self._next = choice.tokens[:, None]
        return Signals(
            token=token,
            probability=chance,
            ended=choice.done,
            tokens=self._decided,
            clock=decoding.clock,
        )

    def _choose(self, plan: Plan) -> Advance:
        """Let the search choose each row's next token."""
        decoding, statistics = self._decoding, self._statistics
        output = self._read(self._search.needs_logits)
        if plan.wait:
            decoding.wait()
        self._context += 1
        self._count_exits()
        statistics.tokens += self._live
        choice = self._advance(output.next_token, output.logits)
        if choice.parents is not None and not choice.done:
            decoding.reorder(choice.parents)
        self._take(choice)
        return choice

    def _verify(self, plan: Plan) -> Generator[None, None, Signals | None]:
        """Let the search choose at every position as long as it agrees with the drafts.

        Returns:
            What was seen; None where the search is over.
        """
        decoding, search, statistics = self._decoding, self._search, self._statistics
        drafts, count = self._drafts, self._fed
        scores = decoding.read(count, want_logits=search.needs_logits)
        if plan.wait:
            decoding.wait()
        statistics.drafted += len(drafts)
        self._depth = sum(self._layers)
        targets: list[int] = []
        for index in range(count):
            logits = None if scores.logits is None else scores.logits[:, index]
            choice = self._advance(scores.next_token[:, index], logits)
            statistics.tokens += 1
            self._count_exits()
            self._take(choice)
            targets += self._decided
            right = index < len(drafts) and targets[-1] == drafts[index]
            statistics.accepted += right
            self._pause()
            yield
            self._resume()
            if choice.done:
                return None
            if not right:
                break
        held = len(targets)
        tokens = chances = None
        if plan.shadow:
            shadow = cast("Decoding", decoding).shadow
            tokens, chances = shadow(plan.shadow, held, skip=count - held)
        self._context += held
        if held < count:
            decoding.crop(self._context)
        self._decided = tuple(targets)
        return Signals(
            tokens=self._decided,
            drafted=len(drafts),
            accepted=held if right else held - 1,
            targets=np.array(targets, np.int64),
            shadow_tokens=tokens,
            shadow_probabilities=chances,
            clock=decoding.clock,
        )

    def _read(self, want_logits: bool) -> StepOutput:
        """The head at each row's last position, unless a look has read it there already."""
        if self._looked is not None:
            return self._looked
        return self._decoding.read(want_logits=want_logits).last

    def _advance(
        self, tokens: NDArray[np.int64] | None, logits: NDArray[np.float32] | None
    ) -> Advance:
        """Let the search choose."""
        began = self._spans.begin()
        choice = self._search.advance(tokens, logits)
        self._spans.end("search", began)
        return choice

    def _take(self, choice: Advance) -> None:
        """Note what the search chose, to be fed next."""
        self._next = choice.tokens[:, None]
        self._decided = (int(choice.tokens[0]),)
        if choice.finished is not self._ended:
            self._ended = choice.finished
            if choice.finished.any():
                # What is fed to a row that has ended is no context, and takes no room.
                self._finished = np.repeat(choice.finished, self._beams)
                self._counts = (~self._finished).astype(np.int64)
                self._live = int(self._counts.sum())

    def _count_exits(self) -> None:
        exits = self._statistics.exits
        if isinstance(self._depth, int):
            exits[self._depth] = exits.get(self._depth, 0) + self._live
            return
        live = self._depth if self._finished is None else self._depth[~self._finished]
        for depth in live.tolist():
            exits[depth] = exits.get(depth, 0) + 1
