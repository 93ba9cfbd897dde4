"""How far the graphs of a device with resident memory reach."""

from __future__ import annotations

from edgedec.runtime.manifest import Limits, Manifest

SCORED = 64
"""The most positions that the head scores in one run."""
PASS = 512
"""The most new positions of one run: scores of attention over all of a long cache would not fit."""
ROWS = 16
SOURCE = 512
TARGET = {"encoder-decoder": 512, "decoder-only": 1024}
"""Architecture -> positions that a cache holds where nobody asked for a number."""


def limits_of(manifest: Manifest) -> Limits:
    """The limits of a bundle: its own, or what an engine is made for by default.

    Args:
        manifest: of the bundle.

    Returns:
        Rows, tokens of a source (None without an encoder), and positions of a cache.
    """
    if manifest.limits is not None:
        return manifest.limits
    io = manifest.interface
    target = TARGET[io.architecture]
    return Limits(
        rows=ROWS,
        source=None if manifest.encoder is None else min(io.max_source or SOURCE, SOURCE),
        target=min(io.max_target or target, target),
    )
