"""Parts that several policies plan with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout
from edgedec.runtime.depth.plan import Pass, Plan, Signals


def through(stages: Iterable[int]) -> tuple[Pass, ...]:
    """These stages in full."""
    return tuple(Pass(stage) for stage in stages)


def all_stages(layout: Layout) -> Plan:
    """Full depth, then choose."""
    return Plan(through(range(len(layout.stages))))


def only_layers(layout: Layout, layers: Iterable[int]) -> Plan:
    """These layers in full, the others not at all, then choose.

    Raises:
        InputError: a stage of the bundle holds some of them and others.
    """
    return Plan(through(layout.of_layers(layers)))


@dataclass(frozen=True)
class Always:
    """The same plan at every step."""

    answer: Plan

    def plan(self, step: int, signals: Signals) -> Plan:  # noqa: ARG002
        """Whatever was seen."""
        return self.answer


@dataclass
class Scheduled:
    """Depth by position alone; one plan for each depth, made when it is first needed.

    Attributes:
        layout: of the bundle.
        depth: steps after the first generated token -> layers that run.
        layers: depth -> which ones.
    """

    layout: Layout
    depth: Callable[[int], int]
    layers: Callable[[int], Iterable[int]]
    plans: dict[int, Plan] = field(default_factory=dict)

    def plan(self, step: int, signals: Signals) -> Plan:  # noqa: ARG002
        """The layers of this position."""
        depth = self.depth(step - 1)
        plan = self.plans.get(depth)
        if plan is None:
            plan = self.plans[depth] = only_layers(self.layout, self.layers(depth))
        return plan


def check_range(name: str, **values: tuple[float | None, float, float | None]) -> None:
    """Refuse parameters out of range.

    Args:
        name: of the policy.
        values: parameter -> (value, least, most); None as a value is not given, as most no bound.

    Raises:
        InputError: naming the first that is.
    """
    for key, (value, least, most) in values.items():
        if value is None:
            continue
        # The negation refuses NaN too.
        if not (least <= value and (most is None or value <= most)):
            bounds = f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
            raise InputError(f"--depth {name}: {key}={value:g} is out of range: give {bounds}.")


def check_layers(name: str, key: str, layers: Iterable[int], first: int, last: int) -> None:
    """Refuse a parameter that names a layer the decoder does not have.

    Raises:
        InputError: one of the layers is not within ``first <= layer <= last``.
    """
    for layer in layers:
        if not first <= layer <= last:
            raise InputError(
                f"--depth {name}: {key}={layer} does not fit a decoder of {last + 1} layers: "
                + (f"give {first} to {last}." if first <= last else "it has too few for this.")
            )


def cut_layers(layers: Iterable[int], count: int) -> frozenset[int]:
    """Layers before which a decoder of ``count`` layers is cut, so that exactly these can differ.

    A cut lies wherever one of them has a neighbour that is not among them.
    """
    inside = set(layers)
    return frozenset(cut for cut in range(1, count) if (cut in inside) != (cut - 1 in inside))
