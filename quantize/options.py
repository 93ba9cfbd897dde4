"""What ``edgedec quantize`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgedec.errors import InputError
from edgedec.quantize.codebook import BITS
from edgedec.quantize.method import Settings

MIXED: Literal["mixed"] = "mixed"
LEARNED, ROUNDED = "jlcm", "rtn"
"""The method that is used where none is named, and the one for 8 bits: nothing that is learned
would be seen in so many."""
TOKENS = 8192
"""Enough for second moments of inputs; twice as many gain little."""
END_BITS = (4, 8)
"""Bits that embeddings and heads may have: fewer cost more accuracy than all layers together."""


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize a model, and what to say of it.

    Attributes:
        method: name of a `edgedec.quantize.method.Method`, as comparisons name theirs beside; ""
            becomes the name of what suits ``bits``.
        bits: of the matrices in layers; `MIXED` chooses for each.
        budget: stored bits per weight that a choice may need on average, if `MIXED`.
        embedding_bits: of the embedding and the head, tied or not; None: what suits ``bits``.
        calibration: text to calibrate on; None: what ships with edgedec.
        tokens: of the text, so many at most.
        evaluation: text to measure on, beside the calibration text.
        sequential: whether later matrices make up for what earlier ones lost, by methods that can.
        settings: of the method.
        threads: to compute with; None: the available cores.
        compute: how products with codes are computed; None: as ``edgedec export`` does.
        portable: whether to leave all but matrices in standard operators.
        revision: branch, tag or commit of a hub id.
        tokenizer: folder with tokenizer files, if the checkpoint has none.
        via: route of an architecture without a family.
        stages: where to cut the decoder.
        depth: depth policies that the bundle shall be made for.
        base: of an adapter in PEFT's format alone, what it was trained on.
        verify: whether to compare the graphs with the reference.
        force: whether to replace an existing bundle.

    Raises:
        InputError: options that exclude each other, or are out of range.
    """

    method: str = ""
    bits: int | Literal["mixed"] = 4
    budget: float | None = None
    embedding_bits: int | None = None
    calibration: Path | None = None
    tokens: int = TOKENS
    evaluation: Path | None = None
    sequential: bool = True
    settings: Settings = field(default_factory=Settings)
    threads: int | None = None
    compute: str | None = None
    portable: bool = False
    revision: str | None = None
    tokenizer: str | None = None
    via: str | None = None
    stages: str | None = None
    depth: tuple[str, ...] = ()
    base: str | None = None
    verify: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        if self.bits != MIXED and self.bits not in BITS:
            raise InputError(f"--bits {self.bits}: choose 2, 3, 4, 8 or mixed.")
        if self.bits == MIXED and self.budget is None:
            raise InputError("--bits mixed needs --budget: stored bits per weight, such as 3.2.")
        if self.bits != MIXED and self.budget is not None:
            raise InputError(f"--budget is for --bits mixed; --bits {self.bits} leaves no choice.")
        # The negation refuses NaN too.
        if self.budget is not None and not min(BITS) < self.budget <= 32:
            raise InputError(
                f"--budget {self.budget:g}: codes have 2 bits at least, and tables and scales come "
                "on top: give a number above 2."
            )
        if self.embedding_bits not in (None, *END_BITS):
            raise InputError(f"--embedding-bits {self.embedding_bits}: choose 4 or 8.")
        for option, value, least in (
            ("tokens", self.tokens, 1),
            ("groups", self.settings.groups, 1),
            ("seed", self.settings.seed, 0),
            ("threads", self.threads, 1),
        ):
            if value is not None and value < least:
                raise InputError(f"--{option} {value}: give at least {least}.")
        # an embedding of 4 bits is learned whatever the layers have
        rounded = self.bits == 8 and self.embedding_bits != 4
        if rounded and self.method not in ("", ROUNDED):
            raise InputError(f"--bits 8 is only rounded: leave out --method, or use {ROUNDED}.")
        if not self.method:
            object.__setattr__(self, "method", ROUNDED if rounded else LEARNED)
