"""The bundles of the tiny shape, in floating point and as codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedec.study.bundles import bundle
from edgedec.study.shapes import ARCHITECTURES, SHAPES

TINY = SHAPES["tiny"]


@pytest.fixture(scope="session")
def tiny(private_cache: Path) -> dict[tuple[str, str], Path]:
    """(architecture, format) -> bundle; not to be written to."""
    return {
        (architecture, quant): bundle(
            TINY, architecture, quant, note=lambda _: None, progress=lambda *_: None
        )
        for quant in ("none", "cb4")
        for architecture in ARCHITECTURES
    }
