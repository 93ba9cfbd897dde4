"""What a manifest may say about depth: variants, classifier, routers, compared policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedec.runtime.manifest import DepthTable, Manifest

VARIANTS = frozenset({"fill", "low-rank"})
MOST_POINTS = 1 << 12
"""No table of policies is longer."""


def depth_components(m: Manifest) -> list[str]:
    """The components that only depth policies run."""
    variants = [name for stage in m.stages for name in stage.variants.values()]
    return variants + [name for name in (m.meta, m.router) if name is not None]


def depth_problems(m: Manifest) -> dict[str, bool]:
    """What contradicts, and whether it does."""
    layers = m.interface.decoder_layers
    return {
        "a stage has a variant that is not known": any(
            not stage.variants.keys() <= VARIANTS for stage in m.stages
        ),
        # It takes tokens, and a variant a hidden state.
        "the first stage has a variant, and it always runs in full": any(
            stage.variants and stage.first == 0 for stage in m.stages
        ),
        "'router' and 'routed' contradict each other": (m.router is None) != (not m.routed),
        "'routed' is no increasing list of the decoder's layers": any(
            not 0 <= layer < layers for layer in m.routed
        )
        or list(m.routed) != sorted(set(m.routed)),
        "a classifier or routers need stages, of which there is one": len(m.stages) == 1
        and (m.meta is not None or m.router is not None),
        "the depth table cannot be": m.depth is not None and not _is_possible(m.depth),
    }


def _is_possible(table: DepthTable) -> bool:
    return (
        table.inputs > 0
        and table.threads > 0
        and 0 < len(table.points) <= MOST_POINTS
        and all(
            point.depth
            and point.quality >= 0
            and point.layers >= 0
            and point.milliseconds > 0
            and point.speedup > 0
            for point in table.points
        )
    )
