"""What decoding is compared with: a random checkpoint, and bundles of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from codes.random_checkpoint import SHAPES, write_checkpoint

QUICK = ("--method", "kmeans")
"""How codes are chosen: their speed is measured, and random weights have nothing to lose."""


@dataclass(frozen=True)
class Case:
    """One comparison: so many sources of so many tokens, and how many are decoded after each."""

    model: str
    rows: int
    source: int
    new_tokens: int

    @property
    def facts(self) -> dict[str, Any]:
        """As results have it."""
        return asdict(self)


@dataclass(frozen=True)
class Files:
    """A checkpoint, and a folder for bundles of it."""

    checkpoint: Path
    folder: Path

    def bundle(self, weights: str) -> Path:
        """A bundle with such weights, ``none`` for those of the checkpoint; exported once."""
        out = self.folder / weights
        if not out.exists():
            command = ["edgedec", "export", str(self.checkpoint), "-o", str(out), "--no-verify"]
            quant = [] if weights == "none" else ["--quant", weights, *QUICK]
            run = [sys.executable, "-m", *command, *quant]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        return out

    def sources(self, case: Case) -> list[list[int]]:
        """Random tokens of the vocabulary; special ones come first and are left out."""
        size = json.loads((self.checkpoint / "config.json").read_text())["vocab_size"]
        random = Random(0)
        return [[random.randrange(10, size) for _ in range(case.source)] for _ in range(case.rows)]


def files(model: str, work: Path) -> Files:
    """Of a folder, or of the random checkpoint of a known shape, which is written once."""
    if model not in SHAPES:
        return Files(Path(model), work / Path(model).name)
    folder = work / model / "checkpoint"
    if not folder.exists():
        write_checkpoint(folder, model, None, 1)
    return Files(folder, folder.parent)


@cache
def first_tokens(own: Files, weights: str, case: Case) -> list[int]:
    """What a bundle with such weights gives for the first source on the CPU."""
    import edgedec

    generator = edgedec.load(own.bundle(weights), device="cpu")
    first = own.sources(case)[:1]
    (result,) = generator.generate(
        first, max_new_tokens=case.new_tokens, eos_token_ids=[], num_beams=1
    )
    return list(result.tokens)
