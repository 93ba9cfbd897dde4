"""Error rates of grapheme-to-phoneme conversion, for predictions from any runtime (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ErrorRates:
    """Fractions between 0 and 1, of ``words`` scored words."""

    word_error_rate: float
    word_error_rate_without_stress: float
    phoneme_error_rate: float
    words: int

    def to_dict(self) -> dict[str, float | int]:
        """The fields by name, as they stand in a checkpoint's ``eval.json``."""
        return asdict(self)


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> ErrorRates:
    """Score each prediction against the closest of its word's listed pronunciations.

    Predictions and pronunciations are phonemes joined by spaces, such as ``"HH AH0 L OW1"``. The
    phoneme error rate counts insertions, deletions and substitutions (stress included) per
    phoneme of the closest pronunciation.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    if not predictions:
        raise ValueError("nothing to score")
    wrong = wrong_without_stress = edits = phonemes = 0
    for prediction, pronunciations in zip(predictions, references, strict=True):
        said = prediction.split()
        listed = [line.split() for line in pronunciations]
        distance, length = min((edit_distance(said, line), len(line)) for line in listed)
        wrong += distance > 0
        wrong_without_stress += strip_stress(said) not in [strip_stress(line) for line in listed]
        edits += distance
        phonemes += length
    words = len(predictions)
    return ErrorRates(wrong / words, wrong_without_stress / words, edits / phonemes, words)


def strip_stress(phonemes: Sequence[str]) -> list[str]:
    """``["HH", "AH0", "L", "OW1"]`` -> ``["HH", "AH", "L", "OW"]``."""
    return [phoneme.rstrip("012") for phoneme in phonemes]


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions."""
    above = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1]
