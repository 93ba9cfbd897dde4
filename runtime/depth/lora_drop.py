"""LoRA-Drop: layers are refreshed now and then, and corrected between (arXiv 2601.02569)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.passes import all_stages, check_layers, check_range, cut_layers
from edgedec.runtime.depth.plan import Pass, Plan, Request, Signals


@dataclass(frozen=True)
class LoraDrop:
    """Every ``cycle`` steps all layers run; between, droppable ones only correct their last output.

    The correction is low-rank and reads the layer's current input. The released code counts on
    across requests and drops by two counters that drift apart; here the prompt is refresh 0 of
    every request, and step t refreshes if t is a multiple of the cycle, as in training.

    Attributes:
        cycle: steps from one refresh to the next; 1 refreshes always.
        layers: droppable layers; none given: all but every fourth, beginning with the first, as
            in the released code.
    """

    name: ClassVar[str] = "lora-drop"
    one_row: ClassVar[bool] = False

    cycle: int = 4
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_range(self.name, cycle=(self.cycle, 1, None))
        if any(layer < 1 for layer in self.layers):
            raise InputError("--depth lora-drop: layer 0 always runs: give layers from 1.")

    def droppable(self, count: int) -> tuple[int, ...]:
        """Layers that are dropped between refreshes, in a decoder of ``count``."""
        return self.layers or tuple(layer for layer in range(count) if layer % 4)

    def needs(self, layers: int) -> Needs:
        """Low-rank variants of the droppable layers, and cuts between these and the others.

        Raises:
            InputError: a layer that the decoder does not have.
        """
        droppable = self.droppable(layers)
        check_layers(self.name, "layers", droppable, 1, layers - 1)
        if self.cycle == 1:
            return Needs()
        return Needs(cuts=cut_layers(droppable, layers), low_rank=frozenset(droppable))

    def start(self, layout: Layout, request: Request) -> LoraDropPlanner:  # noqa: ARG002
        """Begin a batch."""
        refresh = all_stages(layout)
        if self.cycle == 1:
            return LoraDropPlanner(1, refresh, refresh)
        dropped = layout.of_layers(self.droppable(layout.layers))
        passes = (
            Pass(stage, "low-rank" if stage in dropped else "full")
            for stage in range(len(layout.stages))
        )
        return LoraDropPlanner(self.cycle, refresh, Plan(tuple(passes)))


@dataclass(frozen=True)
class LoraDropPlanner:
    """Two plans in turns."""

    cycle: int
    refresh: Plan
    between: Plan

    def plan(self, step: int, signals: Signals) -> Plan:  # noqa: ARG002
        """All layers at multiples of the cycle; the prompt was step 0."""
        return self.between if step % self.cycle else self.refresh
