"""Prompts that fill the caches, in chunks of which the last one has room left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.bundle.conftest import fix_shapes
from tests.export.tiny import VOCAB, write

from edgedec.export import export_checkpoint
from edgedec.runtime.bundle import open_bundle
from edgedec.runtime.generator import Generator

PAST, CHUNK = 11, 7
"""`fix_shapes` makes graphs for 12 tokens."""


@pytest.mark.parametrize("family", ["opt", "llama"])
@pytest.mark.parametrize("count", [PAST - 1, PAST, PAST + 1])
def test_padding_of_the_last_chunk_lies_beyond_all_positions(
    tmp_path: Path, family: str, count: int
) -> None:
    """Learned positions have a row for each that there is, and rotary ones a table of angles."""
    folder = export_checkpoint(write(tmp_path / "checkpoint", family), tmp_path / "plain")
    fixed = fix_shapes(folder, tmp_path / "fixed", chunk=CHUNK)
    fed = np.random.default_rng(count).integers(3, VOCAB, (1, PAST + 1))
    found = []
    for bundle in (folder, fixed):
        decoding = Generator(open_bundle(bundle), threads=1).start_decoding(None, 1)
        steps = [decoding.step(fed[:, :count], want_logits=True).copy()]
        steps += [
            decoding.step(fed[:, at : at + 1], want_logits=True).copy()
            for at in range(count, PAST + 1)
        ]
        found.append(np.stack([step.logits for step in steps if step.logits is not None]))
    assert len(found[0]) == PAST + 2 - count
    np.testing.assert_allclose(found[1], found[0], atol=2e-5, rtol=0)
