"""FiRST: routers read the prompt and fix which layers each row skips (arXiv 2410.12513)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import Always, all_stages, check_range
from edgedec.runtime.depth.plan import Pass, Plan, Request, Signals


@dataclass(frozen=True)
class First:
    """A layer runs for a row if its router's mean score over the prompt reaches the threshold.

    The choice holds for the whole text, so the caches of a row's skipped layers are never read
    again. Rows of a batch may differ; a layer is computed if any of them runs it. Layers without a
    router always run.

    Attributes:
        threshold: lowest score of a layer that runs; 0 runs all.
        layers: run this many instead, those that must and then the highest scores; None: by
            threshold.
        protect: layers at either end that always run; the first one does in any case.
    """

    name: ClassVar[str] = "first"
    one_row: ClassVar[bool] = False

    threshold: float = 0.5
    layers: int | None = None
    protect: int = 1

    def __post_init__(self) -> None:
        check_range(
            self.name,
            threshold=(self.threshold, 0, 1),
            layers=(self.layers, 1, None),
            protect=(self.protect, 0, None),
        )

    def skippable(self, count: int) -> range:
        """Layers that are not protected, in a decoder of ``count``."""
        return range(max(self.protect, 1), count - self.protect)

    def needs(self, layers: int) -> Needs:
        """Stages of one layer, with routers, wherever layers may be skipped.

        Raises:
            InputError: a budget that the decoder or the protected layers do not allow.
        """
        always = layers - len(self.skippable(layers))
        if self.layers is not None and not always <= self.layers <= layers:
            raise InputError(
                f"--depth first: layers={self.layers} cannot be: the decoder has {layers} layers, "
                f"and protect={self.protect} always runs {always} of them."
            )
        if self.layers == layers or (self.layers is None and self.threshold == 0):
            return Needs()
        skippable = frozenset(self.skippable(layers))
        cuts = skippable | {layer + 1 for layer in skippable}
        return Needs(cuts=cuts - {layers}, routers=skippable)

    def mask(self, scores: NDArray[np.float32], routed: frozenset[int]) -> NDArray[np.bool_]:
        """Which layers run: ``[rows, layers]`` for scores of that shape.

        Args:
            scores: of every row and layer.
            routed: layers with a router.
        """
        count = scores.shape[1]
        free = [layer for layer in self.skippable(count) if layer in routed]
        runs = np.ones(scores.shape, np.bool_)
        if self.layers is None:
            runs[:, free] = scores[:, free] >= self.threshold
            return runs
        budget = self.layers - (count - len(free))
        best = np.argsort(-scores[:, free], axis=1, kind="stable")  # of equals the lower layer
        for row, order in enumerate(best):
            runs[row, [free[i] for i in order[budget:]]] = False
        return runs

    def start(self, layout: Layout, request: Request) -> Always | FirstPlanner:  # noqa: ARG002
        """Begin a batch.

        Raises:
            InputError: more layers have no router than the budget allows.
        """
        if self.needs(layout.layers) == Needs():
            return Always(all_stages(layout))
        always = layout.layers - len(layout.routers & set(self.skippable(layout.layers)))
        if self.layers is not None and self.layers < always:
            raise InputError(
                f"--depth first: layers={self.layers} cannot be: {always} layers of this bundle "
                "always run, as they are protected or have no router; give at least that."
            )
        return FirstPlanner(self, layout)


@dataclass
class FirstPlanner:
    """Asks the routers' scores once."""

    policy: First
    layout: Layout
    answer: Plan | None = None

    def plan(self, step: int, signals: Signals) -> Plan:  # noqa: ARG002
        """The layers that the prompt asked for; ``signals.routers`` is read at the first step."""
        if self.answer is None:
            assert signals.routers is not None
            self.answer = self._plan(self.policy.mask(signals.routers, self.layout.routers))
        return self.answer

    def _plan(self, mask: NDArray[np.bool_]) -> Plan:
        passes = []
        for stage, (first, last) in enumerate(self.layout.stages):
            rows: NDArray[np.bool_] = mask[:, first:last].max(
                axis=1
            )  # several layers only where none is skipped
            if rows.any():
                some = None if rows.all() else tuple(bool(runs) for runs in rows)
                passes.append(Pass(stage, rows=some))
        return Plan(tuple(passes))
