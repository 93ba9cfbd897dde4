"""What is quantized and measured: a checkpoint, its texts, and what its answers are held against.

Calibration and evaluation texts never overlap, and neither was trained on where the data has a
part for that.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedec.export.evaluate import scores
from edgedec.runtime.generator import Generator

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

CALIBRATION_BYTES = 200_000
"""Of the language model's text; the rest is for evaluation."""
TOGETHER = 64
"""Answers that are generated side by side."""

Answers = Callable[[Sequence[str]], dict[str, float]]
"""Generated texts -> metrics in percent, by name."""


@dataclass(frozen=True)
class Task:
    """Inputs to generate for, tokens of an answer at most, and what says how good answers are."""

    inputs: list[str]
    longest: int
    rate: Answers

    def run(self, generator: Generator) -> dict[str, float]:
        """Metrics in percent of greedy answers."""
        results = generator.generate(
            self.inputs,
            batch_size=TOGETHER,
            num_beams=1,
            temperature=0.0,
            max_new_tokens=self.longest,
        )
        return self.rate([(result.text or "").strip() for result in results])


@dataclass(frozen=True)
class Case:
    """A model to quantize.

    Attributes:
        name: what results call it.
        checkpoint: a Hugging Face folder.
        calibration: text that matrices are quantized for, as `edgedec quantize --calib` takes it.
        evaluation: text that the divergence is measured on.
        task: what it generates; None for a model of running text.
    """

    name: str
    checkpoint: Path
    calibration: Path
    evaluation: Path
    task: Task | None


def g2p(checkpoint: Path, dictionary: Path, words: int, folder: Path) -> Case:
    """Grapheme to phoneme: words of the training part calibrate, those of the test part measure.

    The targets of both are what the float model says: its tokenizer cannot read phonemes.

    Args:
        checkpoint: such as the built-in one.
        dictionary: CMUdict.
        words: of the test part, so many for the error rates, spread over it.
        folder: to write texts to.
    """
    from g2p.data import load_split
    from g2p.metrics import score

    split = load_split(dictionary)
    test = list(split.test)[:: max(1, len(split.test) // words)][:words]
    listed = [split.test[word] for word in test]

    def rate(texts: Sequence[str]) -> dict[str, float]:
        rates = score(texts, listed)
        return {
            "word error": 100 * rates.word_error_rate,
            "phoneme error": 100 * rates.phoneme_error_rate,
        }

    return Case(
        name="g2p",
        checkpoint=checkpoint,
        calibration=_write(folder / "g2p-train.txt", list(split.train)),
        evaluation=_write(folder / "g2p-test.txt", list(split.test)),
        task=Task(test, 40, rate),
    )


def language_model(checkpoint: Path, text: Path, folder: Path) -> Case:
    """A decoder-only model: held-out text, of which the first 200 KB calibrate."""
    data = gzip.decompress(text.read_bytes())
    parts = data[:CALIBRATION_BYTES], data[CALIBRATION_BYTES:]
    calibration, evaluation = (
        _write(folder / f"lm-{name}.txt", part.decode("utf-8", "ignore").splitlines())
        for name, part in zip(("first", "rest"), parts, strict=True)
    )
    return Case("lm", checkpoint, calibration, evaluation, None)


def translation(checkpoint: Path, data: Path, folder: Path) -> Case:
    """English to German: training pairs calibrate, ``test_2016_flickr`` measures."""
    from translation.data import load_split, write_pairs

    split = load_split(data)
    references = [target for _, target in split.test]

    def rate(texts: Sequence[str]) -> dict[str, float]:
        wanted = ("BLEU", "chrF")
        return {s.name: s.value for s in scores(texts, references) if s.name in wanted}

    calibration, evaluation = folder / "translation-train.tsv", folder / "translation-test.tsv"
    write_pairs(calibration, split.train)
    write_pairs(evaluation, split.test)
    sources = [source for source, _ in split.test]
    return Case("translation", checkpoint, calibration, evaluation, Task(sources, 64, rate))


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
