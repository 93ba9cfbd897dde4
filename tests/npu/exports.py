"""What tests of exports for NPUs share: lengths, and what a bundle says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgedec.export.npu import ranges, texts, verify
from edgedec.runtime.bundle import open_bundle, verify_files
from edgedec.runtime.generator import Generator
from edgedec.runtime.manifest import Agreement, Manifest

INPUTS = [[10], [15, 12, 4, 15, 20, 23, 26], [11, 29]]
LENGTHS: dict[str, Any] = {"max_source": 8, "max_target": 12}
COMPARED, SIMULATED = 20, 6


def take_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models, and short texts for them: simulators take their time."""
    monkeypatch.setattr(texts, "TOKENS", 120)
    monkeypatch.setattr(ranges, "TOKENS", 120)
    monkeypatch.setattr(verify, "TOKENS", COMPARED)
    monkeypatch.setattr(verify, "SIMULATED", SIMULATED)


def tokens(folder: Path, device: str | None = None, inputs: Sequence[Any] = INPUTS) -> list[Any]:
    """What a bundle says, greedily."""
    generator = Generator(open_bundle(folder), device=device, threads=1)
    results = generator.generate(list(inputs), num_beams=1, max_new_tokens=8)
    return [result.tokens for result in results]


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a bundle whose files are what it says."""
    bundle = open_bundle(folder)
    verify_files(bundle)
    return bundle.manifest


def agreement_of(folder: Path) -> Agreement:
    """What the check of its export measured."""
    static = manifest_of(folder).static
    assert static is not None
    assert static.agreement is not None
    return static.agreement
