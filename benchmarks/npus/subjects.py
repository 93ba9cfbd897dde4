"""Make what is measured: checkpoints, texts to calibrate on, inputs, floating-point bundles."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from codes.random_checkpoint import SHAPES, write_checkpoint
from depths.cases import CALIBRATION_BYTES, Case, g2p, language_model

from edgedec.builtin import CHECKPOINTS
from edgedec.errors import InputError
from edgedec.runtime.text import Tokenizer
from npus.cells import Subject

SOURCE_TOKENS = 16
"""Of an input of a random model."""
EDGEDEC = str(Path(sys.executable).with_name("edgedec"))


@dataclass(frozen=True)
class Data:
    """Files that are not in the repository."""

    dictionary: Path | None
    checkpoint: Path | None
    text: Path | None


@dataclass(frozen=True)
class Ready:
    """A model that can be exported and measured.

    Attributes:
        checkpoint: to export.
        calibration: options that name the text for it.
        float: the bundle to compare with.
        sources: inputs as token ids.
        rate: texts -> word errors in percent, where there is a task.
    """

    checkpoint: Path
    calibration: tuple[str, ...]
    float: Path
    sources: list[list[int]]
    rate: Callable[[Sequence[str]], float] | None


def prepare(subject: Subject, data: Data, work: Path, inputs: int) -> Ready:
    """Write or find everything; what exists is kept.

    Raises:
        InputError: a file is needed that was not named.
    """
    work.mkdir(parents=True, exist_ok=True)
    if subject.name in SHAPES:
        return _random(subject, work, inputs)
    if subject.name == "g2p":
        dictionary = _named(data.dictionary, "--dictionary")
        checkpoint: Path = CHECKPOINTS / "g2p"
        made = export_float(checkpoint, work)
        case = g2p(_tokenizer(made), dictionary, inputs)
        return Ready(checkpoint, (), made, case.sources, case.rate)
    checkpoint, text = _named(data.checkpoint, "--checkpoint"), _named(data.text, "--text")
    head = work / "calibration.txt"
    head.write_text(
        gzip.decompress(text.read_bytes())[:CALIBRATION_BYTES].decode("utf-8", "ignore")
    )
    made = export_float(checkpoint, work)
    case: Case = language_model(_tokenizer(made), text, inputs)
    return Ready(checkpoint, ("--calib", str(head)), made, case.sources, None)


def _random(subject: Subject, work: Path, inputs: int) -> Ready:
    checkpoint, text = work / "checkpoint", work / "short.tsv"
    if not text.exists():
        long = write_checkpoint(checkpoint, subject.name, None, 4096)
        pairs = [line.split("\t") for line in long.read_text().splitlines()]
        # lines longer than the graphs would be left out
        short = ["\t".join(" ".join(s.split()[:SOURCE_TOKENS]) for s in pair) for pair in pairs]
        text.write_text("\n".join(short) + "\n")
    random = np.random.default_rng(1)
    size = SHAPES[subject.name]["vocab_size"]
    sources = random.integers(2, size, (inputs, SOURCE_TOKENS)).tolist()
    calibration = ("--calib", str(text))
    return Ready(checkpoint, calibration, export_float(checkpoint, work), sources, None)


def export_float(checkpoint: Path, work: Path) -> Path:
    """The model in floating point, for the CPU."""
    out = work / "float"
    if not out.exists():
        command = [EDGEDEC, "export", str(checkpoint), "-o", str(out), "--no-verify"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def _tokenizer(bundle: Path) -> Tokenizer:
    return Tokenizer.open(bundle / "tokenizer.json")


def _named(path: Path | None, option: str) -> Path:
    if path is None:
        raise InputError(f"this model needs {option}.")
    return path
