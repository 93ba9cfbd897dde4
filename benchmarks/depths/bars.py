"""What the results are held against: the limits that were set before there was anything to measure.

The first outcome is the unadapted checkpoint at full depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from depths.measure import Outcome

LOSSLESS = ("layerskip", "del", "ngram")
SPEEDUP = 1.3
"""Of one of them, with the same tokens for every input."""
NOISE = 0.97
"""`del` may be that much slower than the best fixed exit and still count as equal."""
EXITS = ("early-exit", "free")
FEWER_LAYERS, WER_POINTS = 0.25, 0.3
"""Early exit, FREE's included: so many layers fewer, at most so many points of word errors more."""
ADAPTED = ("skipdecode", "lora-drop")
ADAPTED_SPEEDUP, QUALITY_POINTS = 1.5, 1.0
"""After `adapt`: at least so many times fewer decoder milliseconds within so many points."""


@dataclass(frozen=True)
class Verdict:
    """A bar, the outcome that comes nearest to it, its figure, and whether that keeps the bar."""

    bar: str
    depth: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether the figure reaches the limit."""
        return self.value >= self.limit


def verdicts(outcomes: Sequence[Outcome], *, task: bool) -> Iterator[Verdict]:
    """Every bar that the outcomes say something about; points are those of a task's errors."""
    full = outcomes[0]
    fixed = _of(outcomes, "layerskip")
    own = _of(outcomes, "del")
    lossless = [o for name in LOSSLESS for o in _of(outcomes, name) if o.identical == 1]
    if lossless:
        best = max(lossless, key=lambda o: o.whole_x)
        yield Verdict("lossless: x of the whole call", best.depth, best.whole_x, SPEEDUP)
    if own and fixed:
        best = max(fixed, key=lambda o: o.decode_x)
        ratio = max(own, key=lambda o: o.decode_x).decode_x / best.decode_x
        yield Verdict(f"del: x of the best fixed exit ({best.depth})", "del", ratio, NOISE)
    if not task:
        return
    near = [o for name in EXITS for o in _of(outcomes, name) if _points(o, full) <= WER_POINTS]
    if near:
        best = min(near, key=lambda o: o.layers)
        fewer = 1 - best.layers / full.layers
        bar = f"early exit: layers fewer, within {WER_POINTS} points"
        yield Verdict(bar, _named(best), fewer, FEWER_LAYERS)
    for name in ADAPTED:
        able = [o for o in _of(outcomes, name) if o.checkpoint != full.checkpoint]
        near = [o for o in able if _points(o, full) <= QUALITY_POINTS]
        bar = f"{name} after adapt: x of decoder ms, within {QUALITY_POINTS:g} point"
        if near:
            best = max(near, key=lambda o: o.decode_x)
            yield Verdict(bar, _named(best), best.decode_x, ADAPTED_SPEEDUP)
        elif able:
            best = min(able, key=lambda o: _points(o, full))
            yield Verdict(f"{bar}: none is", _named(best), 0.0, ADAPTED_SPEEDUP)


def _of(outcomes: Sequence[Outcome], name: str) -> list[Outcome]:
    return [o for o in outcomes if o.depth.partition(":")[0] == name]


def _points(outcome: Outcome, full: Outcome) -> float:
    """Points of errors more than full depth's, to hundredths."""
    assert outcome.errors is not None
    assert full.errors is not None
    return round(outcome.errors - full.errors, 2)


def _named(outcome: Outcome) -> str:
    return f"{outcome.checkpoint}: {outcome.depth}"
