"""Depth policies from their text form, ``NAME[:key=value,...]``, and what a bundle offers to them.

The keys are the fields of the policy's dataclass. A list of layers is written ``1-3,5``: a part
without ``=`` continues the value before it.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edgedec.errors import InputError
from edgedec.runtime.depth.layout import Layout, Needs
from edgedec.runtime.depth.plan import Policy, Request
from edgedec.runtime.manifest import DepthTable, Manifest

POLICIES = {
    "full": "edgedec.runtime.depth.full:Full",
    "early-exit": "edgedec.runtime.depth.early_exit:EarlyExit",
    "free": "edgedec.runtime.depth.free:Free",
    "skipdecode": "edgedec.runtime.depth.skipdecode:SkipDecode",
    "unified": "edgedec.runtime.depth.unified:Unified",
    "d3": "edgedec.runtime.depth.d3:D3",
    "first": "edgedec.runtime.depth.first:First",
    "lora-drop": "edgedec.runtime.depth.lora_drop:LoraDrop",
    "layerskip": "edgedec.runtime.depth.layerskip:LayerSkip",
    "del": "edgedec.runtime.depth.del_:Del",
    "ngram": "edgedec.runtime.depth.ngram:Ngram",
}
"""Policy name -> module and class; a module is imported when its policy is asked for."""
AUTO = "auto"
"""Not a policy: the fastest of those that were compared on a text, of a given quality."""
AUTO_QUALITY = 0.99


def parse_depth(text: str) -> tuple[str, dict[str, str]]:
    """Take ``NAME[:key=value,...]`` apart.

    Returns:
        The name and the values as text; `policy_from` gives them their types.

    Raises:
        InputError: no such policy, a key given twice, or a part without a key.
    """
    name, colon, rest = text.strip().partition(":")
    name = name.strip()
    if name not in POLICIES and name != AUTO:
        raise InputError(
            f"--depth {name!r}: there is no such policy; there are: {', '.join(POLICIES)}, and "
            f"{AUTO} on a bundle with a depth table."
        )
    values: dict[str, str] = {}
    key = ""
    for part in rest.split(",") if colon else []:
        left, equals, right = part.partition("=")
        if equals:
            key = left.strip()
            if key in values:
                raise InputError(f"--depth {name}: {key} is given twice.")
            values[key] = right.strip()
        elif key and part.strip():
            values[key] += "," + part.strip()
        else:
            raise InputError(
                f"--depth {name}: {part.strip()!r} is no parameter: write {name}:key=value,..."
            )
    return name, values


def policy_class(name: str) -> type[Policy]:
    """The class of a policy.

    Raises:
        InputError: there is none of that name.
    """
    if name == AUTO:
        raise InputError(
            "--depth auto is for edgedec run, on a bundle that edgedec calibrate-depth has "
            "measured: name the policies that it shall choose from."
        )
    if name not in POLICIES:
        raise InputError(
            f"--depth {name!r}: there is no such policy; there are: {', '.join(POLICIES)}."
        )
    module, _, attribute = POLICIES[name].partition(":")
    found: type[Policy] = getattr(importlib.import_module(module), attribute)
    return found


def policy_from(name: str, parameters: Mapping[str, Any]) -> Policy:
    """A policy with these parameters, as text or as JSON has them, and defaults for the rest.

    Raises:
        InputError: no such policy, an unknown or missing parameter, or a value that is not of its
            type or out of range.
    """
    kind = policy_class(name)
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in parameters:
        if key not in fields:
            known = f"has {', '.join(fields)}" if fields else "takes none"
            raise InputError(f"--depth {name}: there is no parameter {key!r}; {name} {known}.")
    missing = [
        key
        for key, field in fields.items()
        if field.default is dataclasses.MISSING and key not in parameters
    ]
    if missing:
        raise InputError(
            f"--depth {name} needs {' and '.join(missing)}: write {name}:"
            + ",".join(f"{key}=..." for key in missing)
            + "."
        )
    return kind(**{key: _typed(name, key, v, hints[key]) for key, v in parameters.items()})


def describe(policy: Policy) -> str:
    """The text of a policy, without parameters that have their default; `policy_from` reads it."""
    parts = [
        f"{field.name}={_written(getattr(policy, field.name))}"
        for field in dataclasses.fields(policy)  # type: ignore[arg-type]
        if getattr(policy, field.name) != field.default
    ]
    return f"{policy.name}:{','.join(parts)}" if parts else policy.name


def layout_of(manifest: Manifest) -> Layout:
    """What a bundle offers."""
    stages = manifest.stages

    def offering(variant: str) -> frozenset[int]:
        return frozenset(i for i, stage in enumerate(stages) if variant in stage.variants)

    return Layout(
        tuple((stage.first, stage.last) for stage in stages),
        fill=offering("fill"),
        low_rank=offering("low-rank"),
        routers=frozenset(manifest.routed),
        meta=manifest.meta is not None,
    )


def make_policy(text: str, manifest: Manifest) -> Policy:
    """The policy that a text names, for a bundle.

    Parameters come from the text, and where it does not give them from the bundle. Exits that
    neither names are where the bundle is cut. ``auto:quality=Q`` is the fastest policy in the
    bundle's depth table that reaches ``Q``.

    Raises:
        InputError: the text cannot be read, or the bundle cannot do that.
    """
    name, given = parse_depth(text)
    if name == AUTO:
        name, given = parse_depth(_best(given, manifest.depth))
        if name == AUTO:
            raise InputError("--depth auto: the bundle's depth table names no policy.")
    layout = layout_of(manifest)
    policy = on_layout(policy_from(name, {**manifest.policies.get(name, {}), **given}), layout)
    check(policy, layout)
    return policy


def on_layout(policy: Policy, layout: Layout) -> Policy:
    """The policy with exits where the decoder is cut, if it leaves them to the bundle."""
    if getattr(policy, "exits", None) != ():
        return policy
    cuts = tuple(first for first, _ in layout.stages[1:])
    changed: Policy = dataclasses.replace(policy, exits=cuts)  # type: ignore[type-var]
    return changed


def check(policy: Policy, layout: Layout) -> None:
    """Refuse a policy that a bundle cannot carry out.

    Raises:
        InputError: with the reason.
    """
    text = describe(policy)
    needs = policy.needs(layout.layers)
    for reason in _untrained(needs, layout):
        raise InputError(
            f"--depth {policy.name}: {reason}: a checkpoint gets them by edgedec adapt --depth "
            f"{text}, and a bundle of it by edgedec export with the same."
        )
    for reason in _uncut(needs, layout):
        raise InputError(f"--depth {policy.name}: {reason}: export with --depth {text}.")
    policy.start(layout, Request(1, 1, None, [[0]]))  # raises what else there is


def _untrained(needs: Needs, layout: Layout) -> Iterator[str]:
    """What only training adds, as halves of sentences."""
    if missing := needs.low_rank - _layers_of(layout, layout.low_rank):
        yield f"layer {ranges(sorted(missing))} of this bundle has no low-rank variant"
    # Layers without a router always run, so some are enough.
    if needs.routers and not needs.routers & layout.routers:
        yield "the bundle has no routers"
    if needs.meta and not layout.meta:
        yield "the bundle has no confidence classifier"


def _uncut(needs: Needs, layout: Layout) -> Iterator[str]:
    """What every export can add, as halves of sentences."""
    cuts = {first for first, _ in layout.stages}
    if missing := needs.cuts - cuts:
        inner = ranges(sorted(cuts - {0}))
        yield f"the decoder must be cut before layer {ranges(sorted(missing))}, and is " + (
            f"cut before {inner}" if inner else "in one piece"
        )
    if missing := needs.fill - _layers_of(layout, layout.fill):
        yield f"layer {ranges(sorted(missing))} of this bundle has no fill variant"


def _layers_of(layout: Layout, stages: Iterable[int]) -> set[int]:
    return {layer for stage in stages for layer in range(*layout.stages[stage])}


def _best(given: Mapping[str, str], table: DepthTable | None) -> str:
    """The fastest policy of a table that has the quality asked for."""
    for key in given:
        if key != "quality":
            raise InputError(f"--depth auto: there is no parameter {key!r}; auto has quality.")
    quality = _typed(AUTO, "quality", given.get("quality", AUTO_QUALITY), float)
    if not quality > 0:
        raise InputError(f"--depth auto: quality={quality:g} is out of range: give more than 0.")
    if table is None:
        raise InputError(
            "--depth auto: the bundle has no depth table: run edgedec calibrate-depth on it."
        )
    enough = [point for point in table.points if point.quality >= quality]
    if not enough:
        best = max((point.quality for point in table.points), default=0)
        raise InputError(
            f"--depth auto: no policy in the bundle's depth table reaches quality={quality:g}, the "
            f"best has {best:g}: give that, or run edgedec calibrate-depth again."
        )
    return min(enough, key=lambda point: point.milliseconds).depth


def _typed(name: str, key: str, value: Any, hint: Any) -> Any:
    """A parameter's value from text or JSON, as its field's type says."""
    kinds: tuple[Any, ...] = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
    if value is None and types.NoneType in kinds:
        return None
    hint = kinds[0]
    try:
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            if value not in choices:
                raise ValueError(f"one of {', '.join(choices)}")
            return value
        return _READERS[hint](value)
    except ValueError as error:
        raise InputError(f"--depth {name}: {key}={value} cannot be read: give {error}.") from error


_UNIONS = (Union, types.UnionType)


def _whole(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if type(value) is int:
        return value
    raise ValueError("a whole number")


def _real(value: Any) -> float:
    try:
        found = float(value if isinstance(value, str) or type(value) in (int, float) else "")
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("a number")
    return found


def _layers(value: Any) -> tuple[int, ...]:
    """Layers as ``1-3,5`` or a list, sorted, without repetitions."""
    wrong = ValueError("layers such as 1-3,5")
    found: set[int] = set()
    if isinstance(value, str):
        for part in value.split(",") if value else []:
            first, dash, last = part.partition("-")
            try:
                begin, end = _whole(first), _whole(last if dash else first)
            except ValueError:
                raise wrong from None
            if not begin <= end < 10_000:
                raise wrong
            found |= set(range(begin, end + 1))
    elif isinstance(value, list | tuple) and all(type(v) is int and v >= 0 for v in value):
        found |= set(value)
    else:
        raise wrong
    return tuple(sorted(found))


_READERS: dict[Any, Any] = {int: _whole, float: _real, tuple[int, ...]: _layers}


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ranges(value)
    return repr(value) if isinstance(value, float) else str(value)


def ranges(layers: Iterable[int]) -> str:
    """Sorted numbers as ``1-3,5``."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
