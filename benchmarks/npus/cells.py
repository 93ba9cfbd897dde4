"""Which model is measured in which precision, as data and as texts of the command line."""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.devices.npu.precision import PRECISIONS

CONTEXT_SOCS = ("sm8550", "sm8650", "sc8380xp", "sm8750", "sm8850")
"""Chips whose context binaries are made: QNN's numbers 43, 57, 60, 69 and 87."""


@dataclass(frozen=True)
class Subject:
    """A model.

    Attributes:
        name: as ``--model`` takes it.
        inputs: how many are measured.
        new: tokens after each, at most.
        lengths: options of the export.
        cells: what is measured of it, where nobody asks for anything else.
    """

    name: str
    inputs: int
    new: int
    lengths: tuple[str, ...]
    cells: tuple[str, ...]


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "g2p", 500, 40, ("--max-source", "32", "--max-target", "40"),
            (
                "fp16", "nbits8", "nbits8,kv=u8", "nbits8,unroll=4", "w8a16", "w8a16,kv=s16",
                "nbits4", "nbits4,budget=5.3", "w4a16", "lpbq", "lpbq,budget=4.8",
            ),
        ),
        Subject(
            "lm", 16, 32, ("--max-target", "128", "--chunk", "32"),
            ("fp16", "nbits8", "w8a16", "nbits4", "nbits4,budget=5.3"),
        ),
        Subject(
            "t5-small", 4, 12, ("--max-source", "32", "--max-target", "32"),
            ("fp16", "nbits8", "w8a16", "nbits4", "lpbq"),
        ),
        Subject(
            "bart-base", 4, 12, ("--max-source", "32", "--max-target", "32"),
            ("fp16", "nbits8", "w8a16", "nbits4", "lpbq"),
        ),
    )
}  # fmt: skip
"""Name -> model: two that were trained, and the shapes of two known ones with random weights."""


@dataclass(frozen=True)
class Bar:
    """What must hold: a figure of a model's cell is at least, or at most, something."""

    model: str
    cell: str
    figure: str
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        """Whether it holds."""
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )


BARS = (
    *(
        Bar(model, cell, "device", least=least)
        for model in SUBJECTS
        for cell, least in (("fp16", 0.99), ("nbits8", 0.99), ("w8a16", 0.98))
    ),
    Bar("g2p", "nbits4,budget=5.3", "device", least=0.96),
    *(
        Bar("g2p", cell, "wer_change", most=most)
        for cell, most in (("nbits8", 0.5), ("w8a16", 0.5), ("nbits4,budget=5.3", 1.5))
    ),
    Bar("t5-small", "nbits4", "of_eight", most=0.6),
)
"""Agreement of the simulator with floating point, points of word errors, size by that of 8 bits."""


def reads_text(cell: str) -> bool:
    """Whether an export without a check needs a text: for ranges, or to find what is sensitive."""
    precision, *settings = cell.split(",")
    chosen = dict(setting.split("=") for setting in settings)
    kv = chosen.get("kv", PRECISIONS[precision].kv[0])
    return PRECISIONS[precision].needs_ranges(kv) or "budget" in chosen


def export_options(cell: str) -> list[str]:
    """``nbits4,budget=5.3`` as options of ``edgedec export``."""
    precision, *settings = cell.split(",")
    found = ["--quant", precision]
    for setting in settings:
        name, _, value = setting.partition("=")
        found += [f"--{name}", value]
    return found
