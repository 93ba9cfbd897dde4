"""Named weight formats: which matrix gets how many bits."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

SMALL_TABLE = 1024
"""Embeddings and heads with fewer rows have 8 bits: they weigh little and every token uses them."""


@dataclass(frozen=True)
class Scheme:
    """Bits per code, by what a matrix is.

    Attributes:
        name: what ``--quant`` takes.
        bits: of the matrices inside the layers.
        embedding_bits: of the token embedding and the head, tied or not.
    """

    name: str
    bits: int
    embedding_bits: int

    def bits_of(self, rows: int, *, embedding: bool) -> int:
        """Bits of a matrix with so many rows; ``embedding`` says that its rows are tokens."""
        if not embedding:
            return self.bits
        return 8 if rows < SMALL_TABLE else self.embedding_bits


SCHEMES = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            Scheme("cb4", bits=4, embedding_bits=4),
            # At 2 and 3 bits the embedding would cost more accuracy than all layers together.
            Scheme("cb3", bits=3, embedding_bits=4),
            Scheme("cb2", bits=2, embedding_bits=4),
            Scheme("int8", bits=8, embedding_bits=8),
        )
    }
)
