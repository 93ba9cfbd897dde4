"""How good generated text is: metrics against references, before and after quantizing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedec.errors import InputError, MissingDependencyError
from edgedec.export.bundle import Progress
from edgedec.quantize.reporting.report import Score
from edgedec.quantize.text.text_files import TextPair, read_pairs

if TYPE_CHECKING:
    from edgedec.runtime.generator import Generator

BATCH = 16
"""Inputs that are generated for side by side."""


@dataclass(frozen=True)
class Metric:
    """A way to compare texts.

    Attributes:
        name: what reports call it.
        lower_is_better: whether it counts errors.
        function: called with generated texts and as many references; in percent.
    """

    name: str
    lower_is_better: bool
    function: Callable[[Sequence[str], Sequence[str]], float]


def _exact_match(texts: Sequence[str], references: Sequence[str]) -> float:
    """Generated texts that are the reference, but for space around them."""
    return 100 * sum(map(str.__eq__, texts, references)) / len(texts)


def _word_errors(texts: Sequence[str], references: Sequence[str]) -> float:
    """Words between spaces that are wrong, missing or too many, by those of the references."""
    from jiwer import wer

    return 100 * float(wer(list(references), list(texts)))


def _chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    from sacrebleu import corpus_chrf

    return float(corpus_chrf(list(texts), [list(references)]).score)


def _bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    from sacrebleu import corpus_bleu

    # force: no remark on references that seem to be tokenized, which phonemes do
    return float(corpus_bleu(list(texts), [list(references)], force=True).score)


METRICS = (
    Metric("exact match", lower_is_better=False, function=_exact_match),
    Metric("WER", lower_is_better=True, function=_word_errors),
    Metric("chrF", lower_is_better=False, function=_chrf),
    Metric("BLEU", lower_is_better=False, function=_bleu),
)
"""As sacrebleu and jiwer compute them by default. WER of phonemes between spaces is what others
call phoneme error rate; exact match is what word error rate of single words leaves."""


def read_task(path: Path) -> list[TextPair]:
    """Read the pairs of an input and a reference output in a file; none in one of plain text.

    Args:
        path: as for `edgedec.quantize.text.text_files.read_pairs`.

    Raises:
        InputError: no such file, some of its lines have a reference and others have none.
        MissingDependencyError: there are references, but jiwer or sacrebleu is not installed.
    """
    pairs = read_pairs(path)
    without = sum(not (pair.target or "").strip() for pair in pairs)
    if without == len(pairs):
        return []
    if without:
        raise InputError(
            f"{path}: {without:,} of {len(pairs):,} lines have no target to compare with: give all "
            "of them one, or none to measure on plain text."
        )
    try:
        import jiwer  # noqa: F401
        import sacrebleu  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"Measuring generated text against {path.name} needs jiwer and sacrebleu: "
            "pip install 'edgedec[eval]'."
        ) from error
    return pairs


def evaluate(
    generator: Generator, pairs: Sequence[TextPair], progress: Progress
) -> tuple[Score, ...]:
    """Generate for every source, as the checkpoint wants it, and compare with the targets.

    Args:
        generator: of a bundle with a tokenizer.
        pairs: at least one, all with a target.
        progress: told the fraction generated.

    Returns:
        A score for each of `METRICS`, in their order.

    Raises:
        InputError: a source that the model cannot take.
    """
    texts = []
    for begin in range(0, len(pairs), BATCH):
        progress("generating", begin / len(pairs))
        batch = [pair.source for pair in pairs[begin : begin + BATCH]]
        results = generator.generate(batch, batch_size=BATCH, first_row=begin)
        texts += [(result.text or "").strip() for result in results]
    progress("generating", 1.0)
    return scores(texts, [(pair.target or "").strip() for pair in pairs])


def scores(texts: Sequence[str], references: Sequence[str]) -> tuple[Score, ...]:
    """Compare texts with as many references by each of `METRICS`; both without space around."""
    return tuple(
        Score(metric.name, metric.function(texts, references), metric.lower_is_better)
        for metric in METRICS
    )
