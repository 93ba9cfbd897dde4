"""Pairs of sentences from two text files of equal length (no torch here).

``python -m translation.data multi30k FOLDER`` writes them as `edgedec quantize` reads them.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

# A sentence and its translation.
Pair = tuple[str, str]

SOURCE, TARGET = "en", "de"


@dataclass(frozen=True)
class Split:
    """The three disjoint parts of the data, as its authors divided it."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]


def load_split(folder: Path) -> Split:
    """Multi30k's files: ``train``, ``val`` and ``test_2016_flickr``, ``.en`` and ``.de``."""
    return Split(*(read_pairs(folder, part) for part in ("train", "val", "test_2016_flickr")))


def read_pairs(folder: Path, part: str) -> list[Pair]:
    """Line i of ``<part>.en`` beside line i of ``<part>.de``, each plain or ``.gz``.

    White space between words becomes one space: there are tabs in it.

    Raises:
        FileNotFoundError: where the folder has neither form of a file.
        ValueError: where the files have different numbers of lines.
    """
    sources, targets = (_lines(folder / f"{part}.{language}") for language in (SOURCE, TARGET))
    if len(sources) != len(targets):
        raise ValueError(f"{part} has {len(sources)} sources for {len(targets)} targets")
    return list(zip(sources, targets, strict=True))


def _lines(path: Path) -> list[str]:
    packed = path.with_name(f"{path.name}.gz")
    if packed.exists():
        text = gzip.decompress(packed.read_bytes()).decode("utf-8")
    else:
        text = path.read_text(encoding="utf-8")
    # Only line feeds end a line here: str.splitlines would also cut at rarer characters.
    return [" ".join(line.split()) for line in text.removesuffix("\n").split("\n")]


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """Write a source, a tab and a target per line."""
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")


if __name__ == "__main__":
    split = load_split(Path(sys.argv[1]))
    for name in Split.__dataclass_fields__:
        write_pairs(Path(sys.argv[2]) / f"{name}.tsv", getattr(split, name))
