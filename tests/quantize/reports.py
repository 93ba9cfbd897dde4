"""Reports of models that do not exist."""

from __future__ import annotations

from collections.abc import Sequence

from edgedec.quantize.method import Settings
from edgedec.quantize.reporting.report import (
    Agreement,
    CodebookUse,
    Compared,
    Comparison,
    MatrixReport,
    QuantizationReport,
    Score,
    Task,
    Text,
)

TEXT = Text("train.tsv", 40, 8192)
HELD_OUT = Text("test.tsv", 12, 2345)
PLACES = ("self_attn.q", "self_attn.o", "mlp.up", "mlp.down")
NAMES = (
    *(f"encoder.{layer}.{place}.weight" for layer in range(3) for place in PLACES),
    *(f"decoder.{layer}.{place}.weight" for layer in range(2) for place in PLACES),
)


def matrix(name: str, number: int, bits: int = 4) -> MatrixReport:
    """A matrix whose figures are unlike those of any other number."""
    levels = tuple(range(-60, 64, 128 >> bits)) if bits < 8 else tuple(range(-124, 128, 8))
    return MatrixReport(
        name=name,
        role="linear",
        rows=64 + number,
        columns=48,
        bits=bits,
        method="jlcm" if bits < 8 else "rtn",
        bytes=(64 + number) * 48 * bits // 8 + 350 + number,
        output_error=0.012345 + number / 1000,
        objective_start=0.25 + number / 16 if bits < 8 else None,
        objective_end=0.125 + number / 16 if bits < 8 else None,
        seconds=0.5 + number,
        codebooks=tuple(
            CodebookUse(levels, tuple(range(group, group + len(levels)))) for group in range(2)
        ),
    )


def report(
    names: Sequence[str] = NAMES, source: str = "google/flan-t5-small", *, mixed: bool = True
) -> QuantizationReport:
    """A quantized model with matrices of such names, and one more of 8 bits."""
    bits = (2, 3, 4) if mixed else (4,)
    matrices = [matrix(name, i, bits[i % len(bits)]) for i, name in enumerate(names)]
    return QuantizationReport(
        source=source,
        method="jlcm",
        bits="mixed" if mixed else "4",
        budget=3.2 if mixed else None,
        sequential=True,
        settings=Settings(),
        calibration=TEXT,
        matrices=(*matrices, matrix("head.weight", 99, 8)),
        agreements=(
            Agreement(TEXT, 0.00123456, 0.98765, 3.1, 3.15),
            Agreement(HELD_OUT, 0.0023, 0.97, None, None),
        ),
        task=Task(
            "test.tsv",
            1014,
            (Score("exact match", 12.34, False), Score("WER", 51.26, True)),
            (Score("exact match", 11.98, False), Score("WER", 52.73, True)),
        ),
        seconds=124.3,
    )


def comparison(methods: Sequence[str] = ("jlcm", "rtn-block32")) -> Comparison:
    """Methods on a model, and the model as it was."""

    def row(method: str, number: int) -> Compared:
        kl = 0.01 * number
        return Compared(
            method=method,
            stored="block" not in method,
            bits_per_weight=3.0625 + number if number else 32.0,
            output_error=0.03 * number,
            agreement=Agreement(HELD_OUT, kl, 1 - kl, 3.1, 3.1 + kl),
            scores=(Score("chrF", 61.5 - number, False),),
            seconds=12.25 * number if number else None,
        )

    rows = [row(method, number) for number, method in enumerate(["float32", *methods])]
    return Comparison("google/flan-t5-small", 3, TEXT, tuple(rows))
