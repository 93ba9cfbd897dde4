"""CMUdict: reading the dictionary and splitting its words (no torch here)."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GRAPHEMES = "abcdefghijklmnopqrstuvwxyz'-."

# A word and its listed pronunciations, each a string of ARPAbet phonemes joined by single spaces.
Lexicon = dict[str, list[str]]


@dataclass(frozen=True)
class Split:
    """The three disjoint parts of the dictionary."""

    train: Lexicon
    valid: Lexicon
    test: Lexicon

    def phonemes(self) -> list[str]:
        """The phonemes of the training part, stress digits included, sorted."""
        return sorted({p for said in self.train.values() for line in said for p in line.split()})


def read_lexicon(path: Path) -> Lexicon:
    """Read ``WORD n PH ON EM ES`` lines (plain or gzip), in file order.

    Words are lower-cased; those with characters outside ``GRAPHEMES`` are left out.
    """
    lexicon: Lexicon = {}
    for line in _lines(path):
        word, _, *phonemes = line.split()
        word = word.lower()
        if set(word) <= set(GRAPHEMES):
            lexicon.setdefault(word, []).append(" ".join(phonemes))
    return lexicon


def split_lexicon(lexicon: Lexicon) -> Split:
    """Split by sha256(word) mod 100: 0-4 test, 5 valid, the rest train."""
    split = Split({}, {}, {})
    for word, pronunciations in lexicon.items():
        bucket = int(hashlib.sha256(word.encode()).hexdigest(), 16) % 100
        part = split.test if bucket < 5 else split.valid if bucket == 5 else split.train
        part[word] = pronunciations
    return split


def load_split(path: Path) -> Split:
    """``read_lexicon`` followed by ``split_lexicon``."""
    return split_lexicon(read_lexicon(path))


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="latin-1") as file:
            yield from file
    else:
        with path.open(encoding="latin-1") as file:
            yield from file
