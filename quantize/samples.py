"""Token sequences to calibrate on, picked from all over a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One sequence.

    Attributes:
        source: what an encoder reads; None for a decoder-only model.
        target: what the decoder should say, or a piece of text; None where that is not known.
    """

    source: tuple[int, ...] | None
    target: tuple[int, ...] | None
