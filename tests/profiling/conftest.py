"""Plans to measure, and workers that pretend to."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedec.builtin import resolve_bundle


@pytest.fixture(scope="session")
def g2p(private_cache: Path) -> str:
    """Folder of the built-in bundle; not to be written to."""
    return str(resolve_bundle("g2p"))
