"""Decoders for planners to plan on, and short forms of what they see and say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from edgedec.runtime.depth.full import Full
from edgedec.runtime.depth.layout import Layout
from edgedec.runtime.depth.plan import Pass, Plan, Request, Signals

NOTHING = Signals()


def singles(layers: int) -> Layout:
    """One stage per layer, with all that a bundle can offer."""
    return of_cuts(layers, range(1, layers))


def of_cuts(layers: int, cuts: Sequence[int]) -> Layout:
    """Cut before these layers, with all that a bundle can offer."""
    borders = [0, *cuts, layers]
    stages = tuple(pairwise(borders))
    everywhere = frozenset(range(len(stages)))
    return Layout(
        stages,
        fill=everywhere,
        low_rank=everywhere - {0},
        routers=frozenset(range(layers)),
        meta=True,
    )


def request(rows: int = 1, limit: int = 16) -> Request:
    return Request(rows, limit, None, [[0]] * rows)


def full(layout: Layout) -> Plan:
    """The plan of full depth."""
    return Full().start(layout, request()).plan(1, NOTHING)


def stages(plan: Plan) -> list[int]:
    """What runs in full, for all rows."""
    assert all(p == Pass(p.stage) for p in plan.passes)
    return [p.stage for p in plan.passes]


def sure(*confidence: float) -> Signals:
    """What an exit says of every row."""
    return Signals(confidence=np.array(confidence, np.float32))
