"""Metrics of generated text against references."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedec.errors import InputError, MissingDependencyError
from edgedec.export.evaluate import BATCH, METRICS, evaluate, read_task, scores
from edgedec.quantize.text.text_files import TextPair
from edgedec.runtime.generator import Generator

LINE = st.text("abc .", min_size=1, max_size=12).map(str.strip).filter(bool)


class Echo:
    """Generates the input in capitals; a model with no tokenizer for "?"."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, Any]]] = []

    def generate(self, inputs: Sequence[str], **options: Any) -> list[SimpleNamespace]:
        self.calls.append((list(inputs), options))
        return [SimpleNamespace(text=None if t == "?" else f" {t.upper()} ") for t in inputs]


def value(name: str, texts: Sequence[str], references: Sequence[str]) -> float:
    (score,) = [s for s in scores(texts, references) if s.name == name]
    return score.value


@given(st.lists(LINE, min_size=1, max_size=5))
def test_the_reference_itself_is_perfect(lines: list[str]) -> None:
    assert value("exact match", lines, lines) == 100
    assert value("WER", lines, lines) == 0
    assert value("chrF", lines, lines) == pytest.approx(100)


def test_known_values() -> None:
    texts = ["a big cat sat here now", "no", ""]
    references = ["a big cat sat there now", "no", "one two"]
    assert value("exact match", texts, references) == pytest.approx(100 / 3)
    assert value("WER", texts, references) == pytest.approx(100 * 3 / 9)  # 1 wrong, 2 missing
    assert value("BLEU", references, references) == pytest.approx(100)
    # Papineni et al. 2002: runs of 1 to 4 words that are in the reference, and 7 words for 9
    precision = (6 / 7 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    bleu = 100 * precision * math.exp(1 - 9 / 7)
    assert value("BLEU", texts, references) == pytest.approx(bleu, rel=1e-6)


def test_directions() -> None:
    """What is better scores better."""
    good, bad, references = ["a b c d e f"], ["a x c d e f"], ["a b c d e f"]
    for metric in METRICS:
        better, worse = value(metric.name, good, references), value(metric.name, bad, references)
        assert better < worse if metric.lower_is_better else better > worse


def test_evaluate_asks_for_everything_once() -> None:
    pairs = [TextPair(f"w{i}", f" W{i}" if i % 2 else "other") for i in range(2 * BATCH + 1)]
    echo, told = Echo(), list[float]()
    found = evaluate(cast("Generator", echo), pairs, lambda _, done: told.append(done))
    assert [score.name for score in found] == [metric.name for metric in METRICS]
    assert found[0].value == pytest.approx(100 * BATCH / (2 * BATCH + 1))
    assert [text for batch, _ in echo.calls for text in batch] == [pair.source for pair in pairs]
    assert [options["first_row"] for _, options in echo.calls] == [0, BATCH, 2 * BATCH]
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_no_text_counts_as_empty() -> None:
    found = evaluate(cast("Generator", Echo()), [TextPair("?", "a b")], lambda *_: None)
    assert {s.name: s.value for s in found}["WER"] == 100


def test_read_task(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("a\tb\nc\td\n")
    assert read_task(pairs) == [TextPair("a", "b"), TextPair("c", "d")]
    plain = tmp_path / "plain.txt"
    plain.write_text("one\ntwo\n")
    assert read_task(plain) == []
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text('{"source": "a", "target": "b"}\n{"text": "c"}\n')
    with pytest.raises(InputError, match="1 of 2 lines have no target"):
        read_task(mixed)


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    pairs, plain = tmp_path / "pairs.tsv", tmp_path / "plain.txt"
    pairs.write_text("a\tb\n")
    plain.write_text("a\n")
    assert read_task(plain) == []  # which needs no metrics
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgedec\[eval\]'"):
        read_task(pairs)
