"""Which settings of each depth policy are worth a try on a decoder of so many layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgedec.errors import InputError
from edgedec.runtime.depth.options import POLICIES, describe, make_policy, parse_depth, policy_from
from edgedec.runtime.depth.plan import Policy
from edgedec.runtime.manifest import Manifest

Grid = Callable[[int], Iterable[str]]
"""Decoder layers -> the texts of settings, ``key=value,...``."""


def _parts(layers: int, *fractions: float) -> list[int]:
    """Whole numbers of layers, at least 1 and fewer than all; there may be equal ones."""
    return [max(1, min(round(layers * part), layers - 1)) for part in fractions]


def _early_exit(layers: int) -> Iterable[str]:
    confident: dict[str, Sequence[float]] = {
        "softmax_diff": (0.3, 0.5, 0.7, 0.9, 0.95),
        "softmax_max": (0.5, 0.7, 0.9),
        "state": (0.8, 0.9, 0.95),
        "meta": (0.3, 0.5, 0.7, 0.9),
    }
    for measure, values in confident.items():
        yield from (f"measure={measure},threshold={value}" for value in values)
    (half,) = _parts(layers, 0.5)
    yield from (f"threshold={value},min={half}" for value in (0.5, 0.9, 0.95))


def _skipdecode(layers: int) -> Iterable[str]:
    few, half, most = _parts(layers, 0.25, 0.5, 0.75)
    return (
        f"min={low},max={high},length={length}"
        for low, high in ((few, half), (few, most), (half, layers))
        for length in (16, 64)
    )


GRIDS: Mapping[str, Grid] = {
    "early-exit": _early_exit,
    "free": lambda n: (
        f"exit={e},threshold={t}" for e in _parts(n, 0.25, 0.5) for t in (0.5, 0.7, 0.9)
    ),
    "skipdecode": _skipdecode,
    "unified": lambda n: (f"layers={k}" for k in _parts(n, 0.5, 0.75) if k > 1),
    "d3": lambda _: (f"alpha={alpha}" for alpha in (0.9, 0.97, 0.99)),
    "first": lambda n: (f"layers={k}" for k in _parts(n, 0.5, 0.75)),
    "lora-drop": lambda _: (f"cycle={cycle}" for cycle in (2, 3, 4, 6)),
    "layerskip": lambda n: (
        f"exit={e},drafts={g}" for e in _parts(n, 0.125, 0.25, 0.375, 0.5) for g in (2, 4, 6)
    ),
    "del": lambda _: (),
    "ngram": lambda _: (f"drafts={g}" for g in (3, 6, 10)),
}
"""Beside these, every policy is tried with the parameters that the bundle records."""


@dataclass(frozen=True)
class Candidate:
    """A policy to try, and the text that makes it on this bundle."""

    depth: str
    policy: Policy


def candidates(
    manifest: Manifest, depths: Sequence[str] = ()
) -> tuple[list[Candidate], dict[str, str]]:
    """The policies to compare with full depth, each setting once.

    Args:
        manifest: of the bundle.
        depths: policies as ``--depth`` takes them: with parameters, taken as they are; a name
            alone, its grid; none: every policy's grid.

    Returns:
        What the bundle can run, and policy -> why none of its settings can be run.

    Raises:
        InputError: something in ``depths`` is no policy, or the bundle cannot run it.
    """
    found: dict[Policy, Candidate] = {}
    left_out: dict[str, str] = {}
    for text in depths or GRIDS:
        if ":" in text or text not in GRIDS:
            candidate = _candidate(text, manifest)
            found.setdefault(candidate.policy, candidate)
            continue
        able, reason = _of_grid(text, manifest)
        if not able and depths:
            raise InputError(reason)
        if not able:
            left_out[text] = reason
        for candidate in able:
            found.setdefault(candidate.policy, candidate)
    found.pop(make_policy("full", manifest), None)
    return list(found.values()), left_out


def _candidate(text: str, manifest: Manifest) -> Candidate:
    """A policy with a text that gives it again on this bundle, the canonical one if that does."""
    policy = make_policy(text, manifest)
    name, given = parse_depth(text)
    depth = describe(policy)
    if name in POLICIES:  # without exits that follow from the bundle's cuts
        depth = describe(policy_from(name, {**manifest.policies.get(name, {}), **given}))
    # What is a policy's default is left out, in whose place the bundle may record another value.
    return Candidate(depth if make_policy(depth, manifest) == policy else text, policy)


def _of_grid(name: str, manifest: Manifest) -> tuple[list[Candidate], str]:
    """The settings of a policy's grid that the bundle can run; why not, where it can none."""
    able: list[Candidate] = []
    reason = ""
    settings = GRIDS[name](manifest.interface.decoder_layers)
    for text in (*(f"{name}:{setting}" for setting in settings), name):
        try:
            able.append(_candidate(text, manifest))
        except InputError as error:  # noqa: PERF203 - each may fail
            reason = reason or str(error)
    return able, reason
