"""What ``--depth`` asks of an export: cuts, variants, routers, a classifier, and what to record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from edgedec.errors import InputError
from edgedec.export.depth import DepthFacts, Parameters
from edgedec.runtime.depth.layout import Needs
from edgedec.runtime.depth.options import parse_depth, policy_class, policy_from
from edgedec.runtime.schema import encode

TRACED = ("full", "ngram")
"""Policies of bundles whose graphs were traced, and cannot be cut."""


@dataclass(frozen=True)
class DepthPlan:
    """What policies ask for together.

    Attributes:
        needs: cuts, and layers with variants or routers.
        policies: policy -> all of its parameters, as JSON has them; ``full`` always.
    """

    needs: Needs
    policies: dict[str, Parameters]


def plan_depth(texts: Sequence[str], facts: DepthFacts) -> DepthPlan:
    """What these policies need of a checkpoint.

    Args:
        texts: ``NAME[:key=value,...]``; parameters that they do not give are the checkpoint's.
        facts: what the checkpoint offers.

    Raises:
        InputError: a policy that cannot be read, that is given twice, or that the checkpoint or the
            number of its layers makes impossible.
    """
    needs = Needs()
    policies: dict[str, Parameters] = {"full": {}}
    for text in texts:
        name, given = parse_depth(text)
        if name in policies and name != "full":
            raise InputError(f"--depth {name} is given twice: give it once, and --stages for more.")
        policy = policy_from(name, {**defaults(facts, name), **given})
        wanted = policy.needs(facts.layers)
        for reason in missing(wanted, facts):
            raise InputError(f"--depth {name}: {reason}.")
        # Layers without a router always run, so some are enough.
        needs |= replace(wanted, routers=wanted.routers & _routed(facts))
        policies[name] = cast("Parameters", encode(policy))
    return DepthPlan(needs, policies)


def defaults(facts: DepthFacts, name: str) -> Parameters:
    """A policy's parameters as the checkpoint has them: what it holds, then what it says."""
    found: dict[str, Any] = {}
    if name == "lora-drop" and facts.lora_drop is not None:
        found = {"cycle": facts.lora_drop.cycle, "layers": list(facts.lora_drop.layers)}
    elif name == "first" and facts.routers is not None:
        found = {"threshold": facts.routers.threshold}
    elif name == "early-exit" and facts.exits:
        found = {"exits": list(facts.exits)}
    known = {part.name for part in fields(cast("Any", policy_class(name)))}
    return {key: v for key, v in found.items() if key in known} | dict(facts.defaults.get(name, {}))


def missing(needs: Needs, facts: DepthFacts) -> Iterator[str]:
    """What a checkpoint lacks, and what would give it that: sentences without their full stops."""
    adapters = frozenset(() if facts.lora_drop is None else facts.lora_drop.layers)
    if without := sorted(needs.low_rank - adapters):
        have = f"adapters of layers {_words(adapters)} only" if adapters else "no adapters"
        yield (
            f"the checkpoint has {have}, and layers {_words(without)} would need one; "
            f"{TRAINED['lora-drop']}"
        )
    if needs.routers and not needs.routers & _routed(facts):
        yield f"the checkpoint has no routers of the layers that it may skip; {TRAINED['first']}"
    if needs.meta and facts.meta is None:
        yield f"measure=meta needs a classifier, and the checkpoint has none; {TRAINED['meta']}"


TRAINED = {
    "lora-drop": "'edgedec adapt --depth lora-drop' trains them",
    "first": "'edgedec adapt --depth first' trains them",
    "meta": "'edgedec adapt --depth early-exit:measure=meta' trains one",
}
"""What gives a checkpoint that."""


def refuse_traced(texts: Sequence[str], via: str) -> None:
    """Refuse policies for graphs that come from elsewhere.

    Raises:
        InputError: a policy that needs cuts.
    """
    for text in texts:
        name, _ = parse_depth(text)
        if name not in TRACED:
            raise InputError(
                f"--depth {name} with --via {via}: graphs that were traced cannot be cut; there "
                f"are {' and '.join(TRACED)}."
            )


def _routed(facts: DepthFacts) -> frozenset[int]:
    return frozenset(() if facts.routers is None else facts.routers.layers)


def _words(layers: Sequence[int] | frozenset[int]) -> str:
    return ", ".join(map(str, sorted(layers)))
